"""The objects of a stack in its namespace of a cluster, as containers in the terms of the tests.

Objects are mappings in the form of the Kubernetes API.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.catalogue.service import Service
from infra.engine.cluster import TIMEOUT_SECONDS, Workload
from infra.platforms.kubernetes.names import NETWORK_LABEL, SERVICE_LABEL
from smoke_tests.engine import Container, Publication

Plain = Mapping[str, Any]
# The type of a Service that nothing outside of the cluster reaches.
INSIDE = "ClusterIP"
HOST_NAMESPACES = {"hostNetwork": "Network", "hostPID": "Pid", "hostIPC": "Ipc"}
_ALL = {"ipBlock": {"cidr": "0.0.0.0/0"}}
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


@dataclass(frozen=True, kw_only=True)
class Rights:
    """What a container of a pod may do: capabilities added and dropped, whether its root is read-only.

    `name` is pod/container. `token` says whether the pod gets a token of the API server, `cpu_limit` is empty without a
    limit.
    """

    name: str
    service: str
    added: tuple[str, ...]
    dropped: tuple[str, ...]
    read_only: bool
    token: bool
    cpu_limit: str


@dataclass(frozen=True, kw_only=True)
class Namespace:
    """The objects of a namespace. `secrets` is not shown."""

    pods: Sequence[Plain]
    services: Sequence[Plain]
    policies: Sequence[Plain]
    secrets: Sequence[Plain] = field(repr=False)

    def containers(self, references: Mapping[str, str]) -> list[Container]:
        """Return a container for each service: that of a pod that runs where there is one.

        Its name is the service's reference of the exports, and the pod's name where they have none.
        """
        found: dict[str, Container] = {}
        for pod in sorted(self.pods, key=lambda one: one["status"].get("phase") != "Running"):
            service = service_of(pod)
            found.setdefault(service, self._container(pod, service, references.get(service)))
        return list(found.values())

    def rights(self) -> list[Rights]:
        """Return what each container may do; also those that run before a service starts."""
        return [_rights(pod, one) for pod in self.pods for one in _containers(pod)]

    def reachable(self) -> dict[str, str]:
        """Return what is reachable from outside of the cluster and why, by the name of the Service or the pod."""
        found = {}
        for one in self.services:
            kind = str(one["spec"].get("type", INSIDE))
            if kind != INSIDE or one["spec"].get("externalIPs"):
                found[str(one["metadata"]["name"])] = f"Service of type {kind}"
        for pod in self.pods:
            ports = [port for one in _containers(pod) for port in one.get("ports") or []]
            if pod["spec"].get("hostNetwork") or any(port.get("hostPort") for port in ports):
                found[str(pod["metadata"]["name"])] = "pod with ports of its node"
        return found

    def way_out(self, network: str) -> bool:
        """Tell whether pods of a network may connect to addresses outside of the cluster."""
        label = f"{NETWORK_LABEL}/{network}"
        for one in self.policies:
            selected = one["spec"]["podSelector"].get("matchLabels") or {label: ""}
            rules = one["spec"].get("egress") or []
            # A rule without peers allows all of them.
            if label in selected and any(
                "ipBlock" in to for rule in rules for to in rule.get("to") or [_ALL]
            ):
                return True
        return False

    def denies_by_default(self) -> bool:
        """Tell whether a policy selects every pod and allows nothing."""
        return any(
            not (one["spec"].get("podSelector") or {})
            and set(one["spec"].get("policyTypes") or []) == {"Ingress", "Egress"}
            and not (one["spec"].get("ingress") or one["spec"].get("egress"))
            for one in self.policies
        )

    def _container(self, pod: Plain, service: str, reference: str | None) -> Container:
        main = pod["spec"]["containers"][0]
        environment = self._environment(main)
        contexts = [one.get("securityContext") or {} for one in _containers(pod)]
        confined = all(one.get("allowPrivilegeEscalation") is False for one in contexts)
        address = str(pod["status"].get("podIP") or "") if pod["status"].get("phase") == "Running" else ""
        labels = pod["metadata"].get("labels") or {}
        prefix = f"{NETWORK_LABEL}/"
        return Container(
            name=reference or str(pod["metadata"]["name"]),
            service=service,
            status=str(pod["status"].get("phase", "")).lower(),
            health="",
            exit_code=0,
            said="",
            published=tuple(self._published(service)),
            privileged=any(bool(one.get("privileged")) for one in contexts),
            memory_limit=min(_bytes(one) for one in _containers(pod)),
            security_options=("no-new-privileges",) if confined else (),
            host_namespaces=tuple(name for key, name in HOST_NAMESPACES.items() if pod["spec"].get(key)),
            mounts=tuple(
                str(one["hostPath"]["path"]) for one in pod["spec"].get("volumes") or [] if "hostPath" in one
            ),
            networks={name.removeprefix(prefix): address for name in labels if name.startswith(prefix)},
            environment=environment,
            raw=json.dumps([pod["spec"], environment]),
        )

    def _published(self, service: str) -> Iterable[Publication]:
        for one in self.services:
            spec = one["spec"]
            if (spec.get("selector") or {}).get(SERVICE_LABEL) != service or spec.get("type") == INSIDE:
                continue
            for port in spec.get("ports") or []:
                number = int(port.get("nodePort") or port["port"])
                yield Publication(address="", port=number, inside=str(port.get("targetPort")))

    def _environment(self, container: Plain) -> dict[str, str]:
        names = [
            str(one["secretRef"]["name"]) for one in container.get("envFrom") or [] if "secretRef" in one
        ]
        found = {str(one["name"]): str(one.get("value", "")) for one in container.get("env") or []}
        for one in self.secrets:
            if one["metadata"]["name"] in names:
                found |= {
                    key: base64.b64decode(value).decode(errors="replace")
                    for key, value in (one.get("data") or {}).items()
                }
        return found


def service_of(pod: Plain) -> str:
    """Return the service that a pod is of; its own name where it has no label of the kit."""
    labels = pod["metadata"].get("labels") or {}
    return str(labels.get(SERVICE_LABEL) or pod["metadata"]["name"])


def _containers(pod: Plain) -> list[Plain]:
    return [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]


def _rights(pod: Plain, container: Plain) -> Rights:
    context = container.get("securityContext") or {}
    capabilities = context.get("capabilities") or {}
    sources = [
        source
        for volume in pod["spec"].get("volumes") or []
        for source in (volume.get("projected") or {}).get("sources") or []
    ]
    limits = (container.get("resources") or {}).get("limits") or {}
    return Rights(
        name=f"{pod['metadata']['name']}/{container['name']}",
        service=service_of(pod),
        added=tuple(sorted(capabilities.get("add") or ())),
        dropped=tuple(sorted(capabilities.get("drop") or ())),
        read_only=bool(context.get("readOnlyRootFilesystem")),
        token=any("serviceAccountToken" in one for one in sources),
        cpu_limit=str(limits.get("cpu") or ""),
    )


def excess(rights: Rights, service: Service) -> list[str]:
    """Return what a container may do and its service in the catalogue does not need; empty when there is nothing."""
    dropped = "NET_RAW" if service.capabilities is None else "ALL"
    return [
        *(
            f"{rights.name}: {name} added"
            for name in rights.added
            if name not in (service.capabilities or ())
        ),
        *([] if dropped in rights.dropped else [f"{rights.name}: {dropped} not dropped"]),
        *(
            [f"{rights.name}: its root is not read-only"]
            if service.read_only and not rights.read_only
            else []
        ),
        *([] if rights.cpu_limit else [f"{rights.name}: without a limit of the processor"]),
    ]


def _bytes(container: Plain) -> int:
    """Return a container's limit of memory in bytes; 0 without one."""
    text = str(((container.get("resources") or {}).get("limits") or {}).get("memory") or "0")
    number, unit = (text[:-2], UNITS[text[-2:]]) if text[-2:] in UNITS else (text, 1)
    return int(number) * unit


def read(at: Workload) -> Namespace:
    """Return the objects of a workload's namespace. Raises AssertionError when the cluster does not answer."""
    from kubernetes import client as api  # noqa: PLC0415  # its import takes a second
    from kubernetes import config  # noqa: PLC0415
    from kubernetes.client.exceptions import ApiException  # noqa: PLC0415
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    try:
        client = config.new_client_from_config(config_file=at.kubeconfig, context=at.context)
        core = api.CoreV1Api(client)
        lists = {
            "pods": core.list_namespaced_pod,
            "services": core.list_namespaced_service,
            "secrets": core.list_namespaced_secret,
            "policies": api.NetworkingV1Api(client).list_namespaced_network_policy,
        }
        # As the API answers: the client's models reject what another version of it adds.
        found = {
            kind: json.loads(
                listed(at.namespace, _preload_content=False, _request_timeout=TIMEOUT_SECONDS).data
            ).get("items")
            or []
            for kind, listed in lists.items()
        }
    except ApiException as problem:
        raise AssertionError(
            f"namespace {at.namespace} cannot be read: {problem.status} {problem.reason}; the user of context "
            f"{at.context} needs the ClusterRole `admin` there"
        ) from None
    except (HTTPError, OSError) as problem:
        raise AssertionError(f"the cluster of context {at.context} does not answer: {problem}") from None
    return Namespace(**found)
