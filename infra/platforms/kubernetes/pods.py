"""The pod of a service: its container with environment, files, volumes, probes, rights and limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from infra.catalogue import services as catalogue
from infra.catalogue.container_paths import REDIS_UID
from infra.catalogue.service import HealthCheck, Limits
from infra.edge.paths import DRAIN_MARK
from infra.platforms.kubernetes.gate import GUARDED, gate
from infra.platforms.kubernetes.names import (
    JOB_LABEL,
    MEMBER,
    STACK_LABEL,
    claim_label,
    dns_label,
    network_label,
    selector,
)
from infra.platforms.kubernetes.storage import SHARED, Volume, exclusive, pod_volume
from infra.services.spec import File, ServiceSpec

SERVICE_ACCOUNT = "dify"
# Kubernetes' default set has no DAC_READ_SEARCH, the Pod Security level `baseline` refuses it, and PostgreSQL starts
# without it.
REFUSED_CAPABILITIES = frozenset({"DAC_READ_SEARCH"})
# The group that owns a new volume, which belongs to root otherwise: PostgreSQL and Redis drop to their own user, Dify's
# images run as 1001.
POSTGRES_GROUP, DIFY_GROUP = 999, 1001
GROUPS: Mapping[str, int] = {"postgres": POSTGRES_GROUP, "pgvector": POSTGRES_GROUP, "redis": REDIS_UID}
# A container that is about to stop still gets requests until every node has learnt that its address is gone.
PRE_STOP_SECONDS = 5
# Those that keep connections open end them meanwhile: nginx answers each request with `Connection: close`.
PRE_STOP: Mapping[str, str] = {"nginx": f"touch {DRAIN_MARK}; sleep {PRE_STOP_SECONDS}"}
# While a service starts, its health command runs as often; afterwards seldom, as each run costs 15 to 60 ms of CPU.
STARTUP_PERIOD, READINESS_PERIOD = 2, 10
# kubelet restarts a container that has not started by then. `Ready` reports the reason long before.
STARTUP_FACTOR = 4
READINESS_FAILURES = 3
# The catalogue's limits are about four times what a service needs at rest.
MEMORY_SHARE, LEAST_MEMORY, CPU_REQUEST = 4, 32, "50m"
# After a node stops answering, pods without a claim of their own are replaced this soon (Kubernetes: 300).
GONE_NODE_SECONDS = 5
FILES_VOLUME, LIVE_VOLUME = "files", "configuration"


@dataclass(frozen=True, kw_only=True)
class PlacedFile:
    """A file of a Secret: its path below where the Secret is mounted, and its mode."""

    path: str
    mode: int


@dataclass(frozen=True, kw_only=True)
class Live:
    """A configuration that a pod starts with, laid out as on Docker.

    ``<directory>/releases/<revision>/`` has the files of the Secret ``secret`` (``f0``, ``f1``, ... in the order of
    ``files``), and ``<directory>/current`` is a link to it.
    """

    directory: str
    revision: pulumi.Input[str]
    secret: pulumi.Input[str]
    files: Sequence[PlacedFile] | pulumi.Output[list[PlacedFile]]


@dataclass(frozen=True, kw_only=True)
class HostAlias:
    """Names that a pod resolves to an address by itself."""

    address: pulumi.Input[str]
    names: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a pod refers to by name: its image, and the Secrets of its environment and its files (None: there is none).

    ``volumes`` are those of the stack by logical name.
    """

    image: pulumi.Input[str]
    volumes: Mapping[str, Volume]
    environment: pulumi.Input[str] | None = None
    files: pulumi.Input[str] | None = None
    live: Live | None = None
    pull_secret: str = ""
    aliases: Sequence[HostAlias] = ()


def file_key(index: int) -> str:
    """Return the key that a Secret has the content of a file under: paths are no keys."""
    return f"f{index}"


def pod_labels(stack: str, spec: ServiceSpec, volumes: Mapping[str, Volume]) -> dict[str, str]:
    """Return the labels of a service's pods: what selects them, their networks and their claims."""
    claimed = [mount.volume for mount in spec.mounts if volumes[mount.volume].claimed]
    return {
        STACK_LABEL: stack,
        **selector(spec.name),
        **({JOB_LABEL: MEMBER} if spec.job else {}),
        **{network_label(network): MEMBER for network in spec.networks},
        **{claim_label(name): MEMBER for name in claimed},
    }


def pod_template(
    stack: str, spec: ServiceSpec, parts: Parts, *, replicas: int = 1, stateful: bool = False
) -> dict[str, Any]:
    """Return the template of a service's pods."""
    pre_stop = pre_stop_seconds(spec, stateful=stateful)
    group = pod_group(spec)
    return {
        "metadata": {"labels": pod_labels(stack, spec, parts.volumes)},
        "spec": {
            "serviceAccountName": SERVICE_ACCOUNT,
            "automountServiceAccountToken": False,
            # It would add REDIS_PORT=tcp://... and the like to the kit's own variables.
            "enableServiceLinks": False,
            "securityContext": {
                "seccompProfile": {"type": "RuntimeDefault"},
                "fsGroup": group,
                "fsGroupChangePolicy": "OnRootMismatch",
            },
            "terminationGracePeriodSeconds": spec.stop_grace + pre_stop,
            **({"shareProcessNamespace": True} if spec.init else {}),
            **({"dnsConfig": _dns(spec.dns_options)} if spec.dns_options else {}),
            **({"hostAliases": [_alias(one) for one in parts.aliases]} if parts.aliases else {}),
            **({"imagePullSecrets": [{"name": parts.pull_secret}]} if parts.pull_secret else {}),
            **_placement(spec, parts.volumes, replicas=replicas, stateful=stateful),
            **({"restartPolicy": "Never"} if spec.job else {}),
            **({"initContainers": before} if (before := _before(spec, parts)) else {}),
            "containers": [_container(spec, parts, pre_stop=pre_stop)],
            "volumes": _volumes(spec, parts),
        },
    }


def pre_stop_seconds(spec: ServiceSpec, *, stateful: bool) -> int:
    """Return how long a container serves on after its end was requested: only one that others connect to waits."""
    keeps_data = stateful and spec.name != catalogue.NGINX
    return PRE_STOP_SECONDS if catalogue.SERVICES[spec.name].port and not (keeps_data or spec.job) else 0


def pod_group(spec: ServiceSpec) -> int:
    """Return the group that owns the volumes and files of a pod, and that its processes are in."""
    owners = [file.owner for file in spec.files if file.owner is not None]
    if spec.user and (uid := _uid(spec.user)):
        return uid
    return owners[0] if owners else GROUPS.get(spec.image, DIFY_GROUP)


def _uid(user: str) -> int:
    return int(user.partition(":")[0])


def _container(spec: ServiceSpec, parts: Parts, *, pre_stop: int) -> dict[str, Any]:
    return {
        "name": dns_label(spec.name),
        "image": parts.image,
        "imagePullPolicy": "IfNotPresent",
        **({"command": [_literal(one) for one in spec.entrypoint]} if spec.entrypoint else {}),
        **({"args": [_literal(one) for one in spec.command]} if spec.command else {}),
        **({"envFrom": [{"secretRef": {"name": parts.environment}}]} if parts.environment else {}),
        "securityContext": security(spec),
        "resources": resources(spec.limits),
        **(_probes(spec) if spec.health else {}),
        **({"lifecycle": {"preStop": _pre_stop(spec, pre_stop)}} if pre_stop else {}),
        "volumeMounts": _mounts(spec, parts),
    }


def _pre_stop(spec: ServiceSpec, seconds: int) -> dict[str, Any]:
    script = PRE_STOP.get(spec.name)
    return {"exec": {"command": ["sh", "-c", script]}} if script else {"sleep": {"seconds": seconds}}


def _literal(text: str) -> str:
    """Return a word of a command that Kubernetes leaves as it is: it replaces $(NAME), and reads $$ as $."""
    return text.replace("$", "$$")


def security(spec: ServiceSpec) -> dict[str, Any]:
    """Return the rights of a container."""
    if spec.capabilities is None:
        # The runtime's default set; raw sockets are not needed by any service.
        capabilities: dict[str, Any] = {"drop": ["NET_RAW"]}
    else:
        added = sorted(set(spec.capabilities) - REFUSED_CAPABILITIES)
        capabilities = {"drop": ["ALL"], **({"add": added} if added else {})}
    user = {} if spec.user is None else {"runAsUser": _uid(spec.user), "runAsNonRoot": _uid(spec.user) > 0}
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": spec.read_only,
        "capabilities": capabilities,
        **user,
    }


def resources(limits: Limits) -> dict[str, Any]:
    """Return limits and requests. Kubernetes has no limit of processes for a pod."""
    return {
        "limits": {"memory": f"{limits.memory}Mi", "cpu": f"{limits.cpus:g}"},
        "requests": {"memory": f"{max(LEAST_MEMORY, limits.memory // MEMORY_SHARE)}Mi", "cpu": CPU_REQUEST},
    }


def _probes(spec: ServiceSpec) -> dict[str, Any]:
    """Return the probes of a container. None of them restarts it later: a restart repairs no missing database."""
    health: HealthCheck | None = spec.health
    if health is None:
        return {}
    probe = {"exec": {"command": list(health.command)}, "timeoutSeconds": health.timeout}
    return {
        "startupProbe": {
            **probe,
            "periodSeconds": STARTUP_PERIOD,
            "failureThreshold": max(1, spec.ready_timeout * STARTUP_FACTOR // STARTUP_PERIOD),
        },
        "readinessProbe": {
            **probe,
            "periodSeconds": READINESS_PERIOD,
            "failureThreshold": READINESS_FAILURES,
        },
    }


def _volumes(spec: ServiceSpec, parts: Parts) -> list[dict[str, Any]]:
    names = dict.fromkeys(mount.volume for mount in spec.mounts)
    found = [pod_volume(parts.volumes[name]) for name in names]
    found += [
        {"name": f"tmpfs-{index}", "emptyDir": {"medium": "Memory", "sizeLimit": _size(options)}}
        for index, options in enumerate(spec.tmpfs.values())
    ]
    if parts.files is not None:
        items = _items(
            [PlacedFile(path=file_key(i), mode=int(one.mode, 8)) for i, one in enumerate(spec.files)]
        )
        found.append(_secret(FILES_VOLUME, parts.files, items))
    if parts.live:
        found.append(_secret(LIVE_VOLUME, parts.live.secret, _live_items(parts.live)))
    return found


def _secret(name: str, secret: pulumi.Input[str], items: Any) -> dict[str, Any]:  # noqa: ANN401  # an Input
    return {"name": name, "secret": {"secretName": secret, "items": items}}


def _live_items(live: Live) -> pulumi.Input[list[dict[str, Any]]]:
    files = live.files
    return files.apply(_items) if isinstance(files, pulumi.Output) else _items(files)


def _items(files: Sequence[PlacedFile]) -> list[dict[str, Any]]:
    """Return where a Secret's contents go. They belong to root; kubelet lets the pod's group read them."""
    return [
        {"key": file_key(index), "path": file.path, "mode": file.mode} for index, file in enumerate(files)
    ]


def _size(options: str) -> str:
    """Return the size of a tmpfs as a quantity: `size=64m` is 64Mi."""
    found = dict(option.partition("=")[::2] for option in options.split(","))
    return f"{found['size'].removesuffix('m')}Mi"


def _mounts(spec: ServiceSpec, parts: Parts) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "name": f"volume-{dns_label(mount.volume)}",
            "mountPath": mount.path,
            **({"readOnly": True} if mount.read_only else {}),
        }
        for mount in spec.mounts
    ]
    found += [{"name": f"tmpfs-{index}", "mountPath": path} for index, path in enumerate(spec.tmpfs)]
    if parts.files is not None:
        found += [_file_mount(index, file) for index, file in enumerate(spec.files)]
    if live := parts.live:
        place = pulumi.Output.concat(f"{live.directory}/releases/", live.revision)
        found.append({"name": LIVE_VOLUME, "mountPath": place, "readOnly": True})
    return found


def _file_mount(index: int, file: File) -> dict[str, Any]:
    return {"name": FILES_VOLUME, "mountPath": file.path, "subPath": file_key(index), "readOnly": True}


def _before(spec: ServiceSpec, parts: Parts) -> list[dict[str, Any]]:
    """Return the containers that run to their end before the service starts."""
    found = [gate(parts.image, security(spec))] if spec.name in GUARDED else []
    if live := parts.live:
        (volume,) = (mount for mount in spec.mounts if mount.path == live.directory)
        link = ["ln", "-sfn", pulumi.Output.concat("releases/", live.revision), f"{live.directory}/current"]
        found.append(
            {
                "name": "current",
                "image": parts.image,
                "imagePullPolicy": "IfNotPresent",
                "command": link,
                "securityContext": security(spec),
                "resources": resources(Limits(memory=LEAST_MEMORY)),
                "volumeMounts": [{"name": f"volume-{dns_label(volume.volume)}", "mountPath": live.directory}],
            }
        )
    return found


def _alias(one: HostAlias) -> dict[str, Any]:
    return {"ip": one.address, "hostnames": list(one.names)}


def _dns(options: Sequence[str]) -> dict[str, Any]:
    pairs = [option.partition(":") for option in options]
    return {
        "options": [{"name": name, **({"value": value} if colon else {})} for name, colon, value in pairs]
    }


def _placement(
    spec: ServiceSpec, volumes: Mapping[str, Volume], *, replicas: int, stateful: bool
) -> dict[str, Any]:
    """Return where the pods of a service may run."""
    found: dict[str, Any] = {}
    # A volume that one node alone can mount brings all pods that share it to that node.
    together = [mount.volume for mount in spec.mounts if mount.volume in SHARED]
    terms = [
        {
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": {claim_label(name): MEMBER}},
        }
        for name in together
        if volumes[name].one_node
    ]
    if terms:
        found["affinity"] = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    if replicas > 1:
        found["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": dict(selector(spec.name))},
                # Without it pods of the revision before count, and both new ones may end up on one node.
                "matchLabelKeys": ["controller-revision-hash" if stateful else "pod-template-hash"],
            }
        ]
    if not (spec.job or exclusive(spec, volumes) or terms):
        found["tolerations"] = [
            {
                "key": f"node.kubernetes.io/{state}",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": GONE_NODE_SECONDS,
            }
            for state in ("not-ready", "unreachable")
        ]
    return found
