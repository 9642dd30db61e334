"""Refuses a stack that its cluster cannot run, before anything is created. Nothing here changes anything."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pulumi

from infra.catalogue.releases import Release
from infra.catalogue.selection import volume_names
from infra.catalogue.service import Keep
from infra.engine.cluster import Cluster, ClusterError
from infra.guards import advisories, images, volumes
from infra.guards.findings import Refusal
from infra.platforms.kubernetes.names import STACK_LABEL, dns_label
from infra.platforms.kubernetes.storage import READ_WRITE_MANY, SHARED
from infra.settings.kubernetes import Kubernetes
from infra.settings.stack import Settings

# What the program does with objects of the namespace: (group, resource).
MANAGED: Sequence[tuple[str, str]] = (
    ("apps", "deployments"),
    ("apps", "statefulsets"),
    ("batch", "jobs"),
    ("", "services"),
    ("", "secrets"),
    ("", "serviceaccounts"),
    ("", "persistentvolumeclaims"),
    ("networking.k8s.io", "networkpolicies"),
    ("policy", "poddisruptionbudgets"),
)
# And what it does besides: (verb, group, resource).
MORE: Sequence[tuple[str, str, str]] = (
    ("list", "", "pods"),
    ("create", "", "pods"),
    ("delete", "", "pods"),
    ("get", "", "pods/log"),
    ("create", "", "pods/exec"),
    ("list", "", "events"),
    ("list", "apps", "replicasets"),
)
EXPERIMENTAL = (
    "dify:platform: kubernetes is experimental: it was deployed to a test cluster of two nodes, with stand-ins for "
    "Dify's images; try it with data that may be lost"
)
EDGE_COUNTS = (
    "dify:kubernetes.replicas.edge: {replicas} pods of nginx count requests each for itself: a client can make up to "
    "{replicas} times what dify:rateLimits says"
)


class View(Protocol):
    """A cluster, as far as this guard looks at it. All raise ClusterError."""

    def namespace(self, name: str) -> Mapping[str, Any] | None:
        """Return a namespace; None when there is none of that name."""

    def secret_exists(self, namespace: str, name: str) -> bool:
        """Tell whether a namespace has a Secret."""

    def allowed(self, verb: str, group: str, resource: str, namespace: str = "") -> bool:
        """Tell whether the context's user may do something."""

    def storage_classes(self) -> Mapping[str, bool]:
        """Return the storage classes; the value says whether one is the default."""

    def claims(self, namespace: str) -> Mapping[str, Mapping[str, Any]]:
        """Return the claims of a namespace by name."""


def check(settings: Settings, release: Release, chosen: Kubernetes) -> str:
    """Raise pulumi.RunError when the cluster cannot run the stack; log warnings. Return the address of its DNS."""
    try:
        cluster = Cluster.of(chosen.kubeconfig, chosen.context)
        found = refusals(settings, chosen, cluster)
        dns = cluster.dns_address()
    except ClusterError as problem:
        raise pulumi.RunError(f"{problem}; {problem.fix}") from None
    if found:
        raise pulumi.RunError("\n".join(one.text(settings.stack) for one in found))
    for line in (*advisories.warnings(release), *images.warnings(settings), *warnings(chosen)):
        pulumi.log.warn(line)
    return dns


def warnings(chosen: Kubernetes) -> list[str]:
    """Return what does not stop a deployment and should be known before it."""
    replicas = chosen.replicas["nginx"]
    return [EXPERIMENTAL, *([EDGE_COUNTS.format(replicas=replicas)] if replicas > 1 else [])]


def refusals(settings: Settings, chosen: Kubernetes, view: View) -> list[Refusal]:
    """Return everything that keeps the cluster from running the stack."""
    namespace = view.namespace(chosen.namespace)
    if namespace is not None and (stranger := _stranger(settings, chosen, namespace)):
        return [stranger]
    found = [*_rights(chosen, view, exists=namespace is not None), *_classes(chosen, view)]
    if chosen.image_pull_secret:
        found += _pull_secret(settings, chosen, view, exists=namespace is not None)
    if namespace is not None and not found:
        found += _claims(settings, chosen, view)
    return found


def _stranger(settings: Settings, chosen: Kubernetes, namespace: Mapping[str, Any]) -> Refusal | None:
    owner = (namespace["metadata"].get("labels") or {}).get(STACK_LABEL)
    if owner == settings.stack:
        return None
    return Refusal(
        problem=f"dify:kubernetes.namespace: {chosen.namespace!r} exists and is not this stack's: its label "
        f"{STACK_LABEL} is {owner or 'missing'}",
        fix="name another one; or, when it was made for this stack, "
        f"`kubectl label namespace {chosen.namespace} {STACK_LABEL}={settings.stack}`",
    )


def _rights(chosen: Kubernetes, view: View, *, exists: bool) -> list[Refusal]:
    wanted = [
        (verb, group, resource) for group, resource in MANAGED for verb in ("create", "patch", "delete")
    ]
    missing = [
        f"{verb} {resource}{'.' if group else ''}{group}"
        for verb, group, resource in (*wanted, *MORE)
        if not view.allowed(verb, group, resource, chosen.namespace)
    ]
    if not exists and not view.allowed("create", "", "namespaces"):
        missing.append("create namespaces")
    if not missing:
        return []
    return [
        Refusal(
            problem=f"dify:kubernetes.context: {chosen.context!r} may not do in namespace {chosen.namespace}: "
            f"{', '.join(missing)}",
            fix="use a context whose user may, such as one with the ClusterRole `admin` in the namespace",
        )
    ]


def _classes(chosen: Kubernetes, view: View) -> list[Refusal]:
    known = view.storage_classes()
    listed = ", ".join(sorted(known)) or "none"
    found = [
        Refusal(
            problem=f"dify:kubernetes.{key}: {name!r} is no storage class of the cluster",
            fix=f"it has {listed}",
        )
        for key, name in (
            ("storageClass", chosen.storage_class),
            ("sharedStorageClass", chosen.shared_storage_class),
        )
        if name and name not in known
    ]
    if not chosen.storage_class and not any(known.values()):
        found.append(
            Refusal(
                problem="dify:kubernetes.storageClass: is empty, and the cluster has no default class",
                fix=f"name one; it has {listed}",
            )
        )
    return found


def _pull_secret(settings: Settings, chosen: Kubernetes, view: View, *, exists: bool) -> list[Refusal]:
    name, namespace = chosen.image_pull_secret, chosen.namespace
    if exists and view.secret_exists(namespace, name):
        return []
    label = f"{STACK_LABEL}={settings.stack}"
    make = f"`kubectl create namespace {namespace}`, `kubectl label namespace {namespace} {label}`, then "
    return [
        Refusal(
            problem=f"dify:kubernetes.imagePullSecret: namespace {namespace} has no Secret {name!r}",
            fix=f"{'' if exists else make}`kubectl create secret docker-registry {name} --namespace {namespace}` with "
            "the login of the registry",
        )
    ]


def _claims(settings: Settings, chosen: Kubernetes, view: View) -> list[Refusal]:
    """Return the claims that were made with other settings than these."""
    found = view.claims(chosen.namespace)
    wanted = {dns_label(name): name for name in volume_names(*Keep)}
    problems = []
    for name in sorted(set(found) & set(wanted)):
        labels = found[name]["metadata"].get("labels") or {}
        problems += volumes.unfit(f"claim {name}", labels, volumes.labels(settings))
        modes = found[name]["spec"].get("accessModes") or []
        if wanted[name] in SHARED and chosen.shared_storage_class and READ_WRITE_MANY not in modes:
            problems.append(
                Refusal(
                    problem=f"dify:kubernetes.sharedStorageClass: claim {name} exists with {', '.join(modes)}, which "
                    "one node alone can mount, and a claim cannot be changed",
                    fix="set it to empty; or copy the data to a claim of that class",
                )
            )
    return problems
