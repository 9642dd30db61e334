"""A Kubernetes cluster, as a context of a kubeconfig names it, through the official client.

Objects are returned as mappings in the form of the Kubernetes API. Importing the client takes a second, so only what
reaches a cluster imports it.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from infra.catalogue.yaml_reader import read_yaml
from infra.engine import packages
from infra.engine.job_again import again

TIMEOUT_SECONDS = 20
BAD_REQUEST, UNAUTHORIZED, NOT_FOUND = 400, 401, 404
SCHEME = "kubernetes"
# The kind of a reference to one pod of a service.
POD = "Pod"
# kubectl logs and this module agree on the streams: both together, as the container wrote them.
LOG_LINES = 20


class ClusterError(Exception):
    """The cluster cannot be used. `fix` says what to do."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Where the pods of a service are. Its text form is the input of resources, and names no credentials."""

    kubeconfig: str
    context: str
    namespace: str
    kind: str
    name: str

    def __str__(self) -> str:
        """Return kubernetes://<context>/<namespace>/<kind>/<name>?kubeconfig=<path>."""
        path = "/".join(quote(part, safe="") for part in (self.namespace, self.kind, self.name))
        where = urlencode({"kubeconfig": self.kubeconfig})
        return f"{SCHEME}://{quote(self.context, safe='')}/{path}?{where}"

    @classmethod
    def parse(cls, text: str) -> "Workload":
        """Return the workload of a text form. Raises ValueError for anything else."""
        parts = urlsplit(text)
        path = [unquote(part) for part in parts.path.split("/")[1:]]
        kubeconfig = parse_qs(parts.query).get("kubeconfig", [])
        if parts.scheme != SCHEME or len(path) != 3 or len(kubeconfig) != 1:  # noqa: PLR2004
            raise ValueError(f"{text!r} names no workload of a cluster")
        namespace, kind, name = path
        return cls(
            kubeconfig=kubeconfig[0],
            context=unquote(parts.netloc),
            namespace=namespace,
            kind=kind,
            name=name,
        )

    def cluster(self) -> "Cluster":
        """Return the cluster of the workload. Raises ClusterError."""
        return Cluster.of(Path(self.kubeconfig), self.context)


@dataclass(frozen=True, kw_only=True)
class Executed:
    """What a command in a container wrote; ``code`` is None when it did not end in its time."""

    code: int | None
    stdout: bytes
    stderr: bytes


class Cluster:
    """A cluster. Each method raises ClusterError when it does not answer, or refuses."""

    def __init__(self, client: Any, context: str) -> None:  # noqa: ANN401  # kubernetes.client.ApiClient
        from kubernetes import client as api  # noqa: PLC0415

        self._named = f"dify:kubernetes.context: the cluster of context {context!r}"
        self.core = api.CoreV1Api(client)
        self._apps = api.AppsV1Api(client)
        self._batch = api.BatchV1Api(client)
        self._authorization = api.AuthorizationV1Api(client)

    @classmethod
    def of(cls, kubeconfig: Path, context: str) -> Self:
        """Return the cluster of a context. Raises ClusterError when the file does not have it."""
        packages.whole("kubernetes", "kubernetes.config", "kubernetes.client.exceptions", "kubernetes.stream")
        import yaml  # noqa: PLC0415
        from kubernetes import config  # noqa: PLC0415

        if not kubeconfig.is_file():
            raise ClusterError(
                f"dify:kubernetes.kubeconfig: {kubeconfig} does not exist",
                "name the file that has the context",
            )
        try:
            # The client lists contexts only of a file that also has a current one.
            listed = read_yaml(kubeconfig.read_text(encoding="utf-8"))["contexts"]
            names = [str(one["name"]) for one in listed]
        except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as problem:
            raise ClusterError(
                f"dify:kubernetes.kubeconfig: {kubeconfig} cannot be read: {type(problem).__name__}",
                "`kubectl config view` with this file shows what is wrong",
            ) from None
        if context not in names:
            raise ClusterError(
                f"dify:kubernetes.context: {context!r} is not in {kubeconfig}", f"it has {', '.join(names)}"
            )
        try:
            client = config.new_client_from_config(config_file=str(kubeconfig), context=context)
        except Exception as problem:  # noqa: BLE001  # the client raises what its TLS library and its plugins raise
            raise ClusterError(
                f"dify:kubernetes.context: {context!r} of {kubeconfig} cannot be used: {type(problem).__name__}",
                f"`kubectl --context {context} version` shows what is wrong",
            ) from None
        return cls(client, context)

    @contextmanager
    def asking(self, what: str) -> Iterator[None]:
        """Raise ClusterError for what the API refuses, and for one that does not answer."""
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415
        from websocket import WebSocketException  # noqa: PLC0415

        try:
            yield
        except ApiException as problem:
            reason = f"{problem.status} {problem.reason}".strip()
            fix = "see `kubectl auth can-i --list` in this context"
            if problem.status == UNAUTHORIZED:
                fix = "the credentials of the context have ended: sign in to the cluster again"
            raise ClusterError(
                f"{self._named} refuses {what}: {reason}",
                fix,
            ) from None
        except (HTTPError, WebSocketException, OSError) as problem:
            raise ClusterError(
                f"{self._named} does not answer ({what}): {type(problem).__name__}: {_short(problem)}",
                "is its address reachable from this machine? `kubectl cluster-info` shows it",
            ) from None

    @staticmethod
    def _json(call: Any, *arguments: Any, **options: Any) -> dict[str, Any]:  # noqa: ANN401  # a method of the client
        """Return what the API answers, as it is: the client's models reject what another version of it adds."""
        answer = call(*arguments, **options, _preload_content=False, _request_timeout=TIMEOUT_SECONDS)
        return dict(json.loads(answer.data))

    def _items(self, call: Any, *arguments: Any, **options: Any) -> list[dict[str, Any]]:  # noqa: ANN401
        return list(self._json(call, *arguments, **options).get("items") or [])

    def _one(self, what: str, read: Any, *arguments: str) -> dict[str, Any] | None:  # noqa: ANN401
        """Return an object, or None where there is none."""
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415

        with self.asking(f"reading {what}"):
            try:
                return self._json(read, *arguments)
            except ApiException as problem:
                if problem.status != NOT_FOUND:
                    raise
                return None

    def namespace(self, name: str) -> dict[str, Any] | None:
        """Return a namespace; None when there is none of that name."""
        return self._one(f"namespace {name}", self.core.read_namespace, name)

    def allowed(self, verb: str, group: str, resource: str, namespace: str = "") -> bool:
        """Tell whether the context's user may do something; `pods/exec` is a subresource."""
        resource, _, part = resource.partition("/")
        attributes = {
            "verb": verb,
            "group": group,
            "resource": resource,
            "subresource": part,
            "namespace": namespace,
        }
        with self.asking("reading the rights of the user"):
            review = self._json(
                self._authorization.create_self_subject_access_review,
                {"spec": {"resourceAttributes": attributes}},
            )
        return bool(review["status"]["allowed"])

    def claims(self, namespace: str) -> dict[str, dict[str, Any]]:
        """Return the PersistentVolumeClaims of a namespace by name; none when there is no such namespace."""
        with self.asking(f"listing claims of {namespace}"):
            found = self._items(self.core.list_namespaced_persistent_volume_claim, namespace)
        return {one["metadata"]["name"]: one for one in found}

    def dns_address(self) -> str:
        """Return the address of the cluster's DNS. Raises ClusterError when no Service of kube-system has its label."""
        with self.asking("reading the DNS Service of kube-system"):
            found = self._items(
                self.core.list_namespaced_service, "kube-system", label_selector="k8s-app=kube-dns"
            )
        addresses = [str(one["spec"].get("clusterIP") or "") for one in found]
        if not addresses or addresses[0] in {"", "None"}:
            raise ClusterError(
                f"{self._named} has no Service with k8s-app=kube-dns in kube-system",
                "nginx resolves the names of services there: install the cluster's DNS",
            )
        return addresses[0]

    def workload(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """Return a Deployment, a StatefulSet or a Job; None when there is none of that name."""
        readers = {
            "Deployment": self._apps.read_namespaced_deployment,
            "StatefulSet": self._apps.read_namespaced_stateful_set,
            "Job": self._batch.read_namespaced_job,
        }
        return self._one(f"{kind} {name}", readers[kind], name, namespace)

    def replica_sets(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        """Return the ReplicaSets with some labels."""
        with self.asking("listing ReplicaSets"):
            return self._items(self._apps.list_namespaced_replica_set, namespace, label_selector=selector)

    def workloads(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        """Return the Deployments, StatefulSets and Jobs with some labels, each with its kind."""
        listers = {
            "Deployment": self._apps.list_namespaced_deployment,
            "StatefulSet": self._apps.list_namespaced_stateful_set,
            "Job": self._batch.list_namespaced_job,
        }
        with self.asking("listing workloads"):
            return [
                # The API leaves the kind out of what it lists.
                {**one, "kind": kind}
                for kind, listed in listers.items()
                for one in self._items(listed, namespace, label_selector=selector)
            ]

    def secrets(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        """Return the Secrets with some labels; their contents are in base64."""
        with self.asking("listing Secrets"):
            return self._items(self.core.list_namespaced_secret, namespace, label_selector=selector)

    def pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Return a pod; None when there is none of that name."""
        return self._one(f"pod {name}", self.core.read_namespaced_pod, name, namespace)

    def pods(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        """Return the pods with some labels."""
        with self.asking("listing pods"):
            return self._items(self.core.list_namespaced_pod, namespace, label_selector=selector)

    def events(self, namespace: str) -> list[dict[str, Any]]:
        """Return the events of a namespace."""
        with self.asking("listing events"):
            return self._items(self.core.list_namespaced_event, namespace)

    def logs(
        self, namespace: str, pod: str, container: str, *, previous: bool = False, lines: int = LOG_LINES
    ) -> str:
        """Return the last log lines of a container; empty when it has none yet."""
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415

        with self.asking(f"reading the log of {pod}"):
            try:
                answer = self.core.read_namespaced_pod_log(
                    pod,
                    namespace,
                    container=container,
                    previous=previous,
                    tail_lines=lines,
                    _preload_content=False,
                    _request_timeout=TIMEOUT_SECONDS,
                )
            except ApiException as problem:
                if problem.status not in {NOT_FOUND, BAD_REQUEST}:
                    raise
                return ""
        return bytes(answer.data).decode(errors="replace").rstrip()

    def create_pod(self, namespace: str, pod: Mapping[str, Any]) -> dict[str, Any]:
        """Create a pod and return it as the cluster has it."""
        with self.asking("creating a pod"):
            return self._json(self.core.create_namespaced_pod, namespace, pod)

    def delete_pod(self, namespace: str, name: str) -> None:
        """Delete a pod; what runs it makes another one."""
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415

        with self.asking(f"deleting pod {name}"):
            try:
                self._json(self.core.delete_namespaced_pod, name, namespace)
            except ApiException as problem:
                if problem.status != NOT_FOUND:
                    raise

    def delete_claim(self, namespace: str, name: str) -> None:
        """Delete a PersistentVolumeClaim."""
        with self.asking(f"deleting claim {name}"):
            self._json(self.core.delete_namespaced_persistent_volume_claim, name, namespace)

    def run_job_again(self, namespace: str, job: Mapping[str, Any], seconds: float) -> None:
        """Make a Job again that has ended: a Job runs once, and its pods go with it."""
        name = str(job["metadata"]["name"])
        with self.asking(f"running job {name} again"):
            self._json(self._batch.delete_namespaced_job, name, namespace, propagation_policy="Foreground")
        deadline = time.monotonic() + seconds
        while self.workload("Job", namespace, name) is not None:
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"job {name} is still there {seconds:.0f} s after it was deleted", "run it again"
                )
            time.sleep(0.2)
        with self.asking(f"running job {name} again"):
            self._json(self._batch.create_namespaced_job, namespace, again(job))

    @contextmanager
    def channel(
        self, namespace: str, pod: str, container: str, command: Sequence[str], *, stdin: bool
    ) -> Iterator[Any]:
        """Yield the client's WebSocket (`WSClient`) to a command that runs in a container."""
        from kubernetes import stream  # noqa: PLC0415

        with self.asking(f"running {command[0]} in {pod}"):
            opened = stream.stream(
                self.core.connect_get_namespaced_pod_exec,
                pod,
                namespace,
                container=container,
                command=list(command),
                stdin=stdin,
                stdout=True,
                stderr=True,
                tty=False,
                binary=True,
                _preload_content=False,
                _request_timeout=TIMEOUT_SECONDS,
            )
            try:
                yield opened
            finally:
                opened.close()

    def execute(
        self,
        namespace: str,
        pod: str,
        container: str,
        command: Sequence[str],
        *,
        seconds: float,
        line: bytes = b"",
    ) -> Executed:
        """Run a command in a container for at most `seconds`, with `line` on its standard input when given.

        With a line, the answer is a line too, and over when that has come.
        """
        deadline = time.monotonic() + seconds
        output = {1: b"", 2: b""}
        with self.channel(namespace, pod, container, command, stdin=bool(line)) as channel:
            if line:
                channel.write_stdin(line)
            while channel.is_open() and (left := deadline - time.monotonic()) > 0:
                channel.update(timeout=left)
                for number in output:
                    output[number] += channel.read_channel(number)
                if line and output[1].endswith(b"\n"):
                    return Executed(code=None, stdout=output[1], stderr=output[2])
            code = None if channel.is_open() else _code(channel)
        return Executed(code=code, stdout=output[1], stderr=output[2])


def _code(channel: Any) -> int | None:  # noqa: ANN401  # the client's WSClient
    try:
        return int(channel.returncode)
    except (KeyError, IndexError, TypeError, ValueError):
        # The connection ended before the status of the command came.
        return None


def _short(problem: Exception) -> str:
    return str(problem)[:200]
