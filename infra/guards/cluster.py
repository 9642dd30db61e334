"""Refuses a stack that its cluster cannot run, before anything is created. Nothing here changes anything."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pulumi

from infra.catalogue.releases import Release
from infra.engine.cluster import ClusterError
from infra.engine.cluster_view import ClusterView
from infra.guards import (
    advisories,
    cluster_certificates,
    cluster_claims,
    cluster_data,
    cluster_room,
    cluster_routes,
    cluster_scaling,
    images,
)
from infra.guards.cluster_facts import CLASSES, Plain, View, is_default, items
from infra.guards.findings import Refusal
from infra.platforms.kubernetes.names import STACK_LABEL
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
VERBS = ("get", "list", "watch", "create", "patch", "delete")
# Each right is a request.
AT_A_TIME = 8
TERMINATING = "Terminating"
PULL_TYPES = ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg")
EXPERIMENTAL = (
    "dify:platform: kubernetes is experimental: it was deployed to a test cluster of two nodes, with stand-ins for "
    "Dify's images; try it with data that may be lost"
)


def check(settings: Settings, release: Release, chosen: Kubernetes) -> str:
    """Raise pulumi.RunError when the cluster cannot run the stack; log warnings. Return the address of its DNS."""
    try:
        cluster = ClusterView.of(chosen.kubeconfig, chosen.context)
        found = refusals(settings, release, chosen, cluster)
        more = [
            *cluster_room.warnings(settings, chosen, cluster),
            *(cluster_data.warnings(settings, chosen, cluster) if not found else ()),
        ]
        dns = cluster.dns_address()
    except ClusterError as problem:
        raise pulumi.RunError(f"{problem}; {problem.fix}") from None
    if found:
        raise pulumi.RunError("\n".join(one.text(settings.stack) for one in found))
    for line in (*advisories.warnings(release), *images.warnings(settings), EXPERIMENTAL, *more):
        pulumi.log.warn(line)
    return dns


def refusals(settings: Settings, release: Release, chosen: Kubernetes, view: View) -> list[Refusal]:
    """Return everything that keeps the cluster from running the stack."""
    namespace = view.namespace(chosen.namespace)
    if namespace is not None and (stranger := _stranger(settings, chosen, namespace)):
        return [stranger]
    exists = namespace is not None
    # Without rights nothing else can be read.
    if missing := _rights(settings, chosen, view, exists=exists):
        return missing
    found = [
        *cluster_room.of_cluster(settings, chosen, view),
        *_classes(chosen, view),
        *cluster_room.of_port(chosen, view, exists=exists),
        *cluster_scaling.refusals(settings, chosen, view),
        *cluster_routes.refusals(chosen, view, exists=exists),
        *cluster_certificates.refusals(chosen, settings.tls, view, exists=exists),
        *cluster_data.refusals(settings, chosen, view),
    ]
    if chosen.image_pull_secret:
        found += _pull_secret(settings, chosen, view, exists=exists)
    if namespace is not None:
        found += [*_pod_security(chosen, namespace)]
        found += cluster_room.of_namespace_limits(settings, release, chosen, view)
        if not found:
            found += cluster_claims.refusals(settings, chosen, view)
    return found


def _stranger(settings: Settings, chosen: Kubernetes, namespace: Plain) -> Refusal | None:
    """Return why nothing can be made in a namespace: it is of others, or on its way out."""
    owner = (namespace["metadata"].get("labels") or {}).get(STACK_LABEL)
    if owner == settings.stack:
        if (namespace.get("status") or {}).get("phase") != TERMINATING:
            return None
        return Refusal(
            problem=f"dify:kubernetes.namespace: {chosen.namespace!r} is being deleted, and takes no new object",
            fix=f"wait until `kubectl get namespace {chosen.namespace}` finds none, or name another one",
        )
    return Refusal(
        problem=f"dify:kubernetes.namespace: {chosen.namespace!r} exists and is not this stack's: its label "
        f"{STACK_LABEL} is {owner or 'missing'}",
        fix="name another one; or, when it was made for this stack, "
        f"`kubectl label namespace {chosen.namespace} {STACK_LABEL}={settings.stack}`",
    )


def managed(settings: Settings, chosen: Kubernetes) -> list[tuple[str, str]]:
    """Return the kinds of objects that a stack has in its namespace: (group, resource)."""
    return [
        *MANAGED,
        *cluster_scaling.managed(chosen),
        *cluster_routes.managed(chosen),
        *cluster_certificates.managed(settings.tls),
    ]


def _rights(settings: Settings, chosen: Kubernetes, view: View, *, exists: bool) -> list[Refusal]:
    wanted = [(verb, group, resource) for group, resource in managed(settings, chosen) for verb in VERBS]
    asked = [(*one, chosen.namespace) for one in (*wanted, *MORE)]
    # Its labels are the stack's.
    asked.append(
        ("patch", "", "namespaces", chosen.namespace) if exists else ("create", "", "namespaces", "")
    )
    with ThreadPoolExecutor(AT_A_TIME) as several:
        answers = list(several.map(lambda one: view.allowed(*one), asked))
    missing = [
        f"{verb} {resource}{'.' if group else ''}{group}"
        for (verb, group, resource, _), allowed in zip(asked, answers, strict=True)
        if not allowed
    ]
    if not missing:
        return []
    return [
        Refusal(
            problem=f"dify:kubernetes.context: {chosen.context!r} may not do in namespace {chosen.namespace}: "
            f"{', '.join(missing)}",
            fix="use a context whose user may, such as one with the ClusterRole `admin` in the namespace that may "
            "create or patch that namespace too",
        )
    ]


def _classes(chosen: Kubernetes, view: View) -> list[Refusal]:
    listed = items(view, CLASSES)
    if listed is None:
        return []
    known = {str(one["metadata"]["name"]): is_default(one) for one in listed}
    names = ", ".join(sorted(known)) or "none"
    found = [
        Refusal(
            problem=f"dify:kubernetes.{key}: {name!r} is no storage class of the cluster",
            fix=f"it has {names}",
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
                fix=f"name one; it has {names}",
            )
        )
    return found


def _pod_security(chosen: Kubernetes, namespace: Plain) -> Iterator[Refusal]:
    label = "pod-security.kubernetes.io/enforce"
    if (namespace["metadata"].get("labels") or {}).get(label) == "restricted":
        yield Refusal(
            problem=f"dify:kubernetes.namespace: {chosen.namespace!r} has the Pod Security level restricted, which "
            "refuses containers that start as root: PostgreSQL, Redis and the sandboxes",
            fix=f"`kubectl label --overwrite namespace {chosen.namespace} {label}=baseline`, or name another one",
        )


def _pull_secret(settings: Settings, chosen: Kubernetes, view: View, *, exists: bool) -> list[Refusal]:
    name, namespace = chosen.image_pull_secret, chosen.namespace
    kind = view.secret_type(namespace, name) if exists else None
    if kind in PULL_TYPES:
        return []
    if kind is not None:
        return [
            Refusal(
                problem=f"dify:kubernetes.imagePullSecret: Secret {name!r} is of the type {kind}, with which no node "
                "pulls",
                fix=f"make one of the type {PULL_TYPES[0]} by `kubectl create secret docker-registry NAME --namespace "
                f"{namespace}`, and name it",
            )
        ]
    label = f"{STACK_LABEL}={settings.stack}"
    make = f"`kubectl create namespace {namespace}`, `kubectl label namespace {namespace} {label}`, then "
    return [
        Refusal(
            problem=f"dify:kubernetes.imagePullSecret: namespace {namespace} has no Secret {name!r}",
            fix=f"{'' if exists else make}`kubectl create secret docker-registry {name} --namespace {namespace}` with "
            "the login of the registry",
        )
    ]
