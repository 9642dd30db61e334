"""Copies claims out of a cluster and into it, by tar in a pod of its own that mounts one claim and does nothing else.

The pod runs the image of api, which the nodes have and which has GNU tar, as root with the rights that owners and modes
need. It has no label of a network, so the stack's default policy closes it in both directions. It is on the node of the
pods that mount the claim, as a claim with ReadWriteOnce demands. Where it is left behind, the cluster ends it.
"""

import contextlib
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dify_kit.backup.blocks import gathered
from dify_kit.backup.stores import ROOT, VolumeError, Volumes, counted
from dify_kit.backup.trees import BrokenTreeError, Census
from dify_kit.talk import say
from infra.catalogue.service import Keep
from infra.engine.cluster import Cluster, ClusterError
from infra.engine.cluster_changes import create, delete_pod_now, wait
from infra.engine.pod_streams import BrokenStreamError, running
from infra.platforms.kubernetes import policies, storage
from infra.platforms.kubernetes.names import MEMBER, STACK_LABEL, claim_label, dns_label
from infra.resources.workload_state import trouble, unscheduled
from infra.settings.kubernetes import Kubernetes

ABOVE = "/backup"
CONTAINER = "backup"
# A node may have to pull the image; a class may have to make the volume.
START_SECONDS, GONE_SECONDS = 900.0, 180.0
# The longest that a copy of one volume may take. The cluster ends the pod then.
LIFE_SECONDS = 6 * 3600
# Between two blocks of a stream. A disk that hangs longer is no disk to back up from.
SILENCE_SECONDS = 600.0
REPORT_TIMES = 10
# A file that changes while it is read is no error; one that shrinks leaves zeros in the copy.
CHANGED, SHRANK = 1, "shrank"
# `head` ends by the size: the input of a command in a pod cannot be closed by every release of Kubernetes.
_UNPACK = f'head -c "$1" | tar -x -p --same-owner --numeric-owner -C {ABOVE}'
_PACK = (
    *("env", "LC_ALL=C", "tar", "-c", "--format=posix", "--numeric-owner", "-C", ABOVE),
    # Of a file system of its own, at the root of the volume.
    *(f"--exclude={ROOT}/lost+found", "-f", "-", ROOT),
)
_RIGHTS = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")


def helper_pod(
    stack: str, claim: str, volume: str, image: str, pull_secret: str, *, read_only: bool
) -> dict[str, Any]:
    """Return the pod that mounts a claim."""
    label = claim_label(volume)
    near = {
        "topologyKey": "kubernetes.io/hostname",
        # It has the label itself: where no other pod mounts the claim, any node will do.
        "labelSelector": {"matchLabels": {label: MEMBER}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{CONTAINER}-{claim}-{secrets.token_hex(3)}",
            "labels": {STACK_LABEL: stack, label: MEMBER},
        },
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": LIFE_SECONDS,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [near]}},
            "securityContext": {
                "runAsUser": 0,
                "runAsGroup": 0,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            **({"imagePullSecrets": [{"name": pull_secret}]} if pull_secret else {}),
            "containers": [
                {
                    "name": CONTAINER,
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", str(LIFE_SECONDS)],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"], "add": list(_RIGHTS)},
                    },
                    "resources": {
                        "requests": {"cpu": "50m", "memory": "32Mi"},
                        "limits": {"cpu": "1", "memory": "256Mi"},
                    },
                    "volumeMounts": [
                        {"name": ROOT, "mountPath": f"{ABOVE}/{ROOT}", "readOnly": read_only},
                    ],
                }
            ],
            "volumes": [{"name": ROOT, "persistentVolumeClaim": {"claimName": claim}}],
        },
    }


@dataclass(frozen=True, kw_only=True)
class ClaimVolumes(Volumes):
    """The claims of a stack. `image` is one that the nodes have, or pull, with GNU tar."""

    cluster: Cluster
    chosen: Kubernetes
    stack: str
    image: str

    @contextlib.contextmanager
    def reading(self, volume: str) -> Iterator[Iterator[bytes]]:
        """See Volumes."""
        with _told(), self._pod(volume, read_only=True) as pod:
            yield self._packed(pod)

    def _packed(self, pod: str) -> Iterator[bytes]:
        with _told():
            with running(self.cluster, self.chosen.namespace, pod, CONTAINER, _PACK) as stream:
                yield from gathered(stream.output(SILENCE_SECONDS))
            if stream.code == CHANGED and SHRANK in stream.errors:
                raise BrokenTreeError(stream.errors.strip()[-300:])
            if stream.code not in {0, CHANGED}:
                raise VolumeError(f"tar ended with code {stream.code}: {stream.errors.strip()[-300:]}")

    def fill(self, volume: str, labels: Mapping[str, str], content: Iterator[bytes], size: int) -> Census:
        """See Volumes. Makes the namespace, and its policy that closes pods, where they are not there yet."""
        with _told():
            self._prepare()
            self._claim(volume, labels)
            with self._pod(volume, read_only=False) as pod:
                self._unpack(pod, content, size)
                # A pod takes seconds to start: the same one reads what it has written.
                return counted(self._packed(pod))

    def _unpack(self, pod: str, content: Iterator[bytes], size: int) -> None:
        command = ("sh", "-c", _UNPACK, "sh", str(size))
        with running(self.cluster, self.chosen.namespace, pod, CONTAINER, command, stdin=True) as stream:
            stream.send(content, SILENCE_SECONDS)
            for _ in stream.output(SILENCE_SECONDS):
                pass
        if stream.code:
            raise VolumeError(f"tar ended with code {stream.code}: {stream.errors.strip()[-300:]}")

    def _prepare(self) -> None:
        """Make what has to be there before the first pod. The next `up` takes both over, as it does claims."""
        namespace = self.chosen.namespace
        create(self.cluster, policies.namespace(namespace, self.stack))
        closed = next(one for one in policies.policies(self.stack, {}) if not one["spec"]["podSelector"])
        create(self.cluster, closed, namespace)
        # Of a run that was killed: it would keep its claim.
        for pod in self.cluster.pods(namespace, f"{STACK_LABEL}={self.stack}"):
            if str(name := pod["metadata"]["name"]).startswith(f"{CONTAINER}-"):
                delete_pod_now(self.cluster, namespace, name)

    def _claim(self, volume: str, labels: Mapping[str, str]) -> None:
        one = storage.volume(self._logical(volume), Keep.DATA, shared_class=self.chosen.shared_storage_class)
        manifest = storage.claim(
            one,
            labels=labels,
            storage_class=self.chosen.storage_class,
            shared_class=self.chosen.shared_storage_class,
            gigabytes=self.chosen.volume_gigabytes,
        )
        name = str(manifest["metadata"]["name"])

        def there() -> str:
            found = self.cluster.claims(self.chosen.namespace).get(name)
            return (
                f"claim {name} is being deleted"
                if found and found["metadata"].get("deletionTimestamp")
                else ""
            )

        wait(f"the end of the earlier claim {name}", GONE_SECONDS, there)
        if not create(self.cluster, manifest, self.chosen.namespace):
            raise VolumeError(f"claim {name} exists already in namespace {self.chosen.namespace}")

    @contextlib.contextmanager
    def _pod(self, volume: str, *, read_only: bool) -> Iterator[str]:
        """Yield the name of a running pod that mounts a claim; it is deleted afterwards."""
        logical = self._logical(volume)
        manifest = helper_pod(
            self.stack,
            dns_label(logical),
            logical,
            self.image,
            self.chosen.image_pull_secret,
            read_only=read_only,
        )
        name, namespace = str(manifest["metadata"]["name"]), self.chosen.namespace
        create(self.cluster, manifest, namespace)
        looks = 0

        def waits() -> str:
            nonlocal looks
            pod = self.cluster.pod(namespace, name)
            if pod is None:
                raise ClusterError(f"pod {name} is gone", "run the command again")
            if found := trouble(pod):
                raise ClusterError(f"pod {name} cannot start: {found.reason}", "see `kubectl describe pod`")
            status = pod.get("status") or {}
            states = [one.get("state") or {} for one in status.get("containerStatuses") or []]
            if states and "running" in states[0]:
                return ""
            if status.get("phase") == "Failed":
                raise ClusterError(f"pod {name} failed: {status.get('message') or status.get('reason')}", "")
            looks += 1
            seen = unscheduled(pod) or str(status.get("phase") or "no state yet")
            if looks % REPORT_TIMES == 0:
                say(f"    pod {name} starts: {seen} ...")
            return seen

        try:
            wait(f"the start of pod {name}", START_SECONDS, waits)
            yield name
        finally:
            delete_pod_now(self.cluster, namespace, name)

    def _logical(self, volume: str) -> str:
        return volume.removeprefix(f"dify-{self.stack}-")


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (ClusterError, BrokenStreamError) as problem:
        fix = f"; {problem.fix}" if isinstance(problem, ClusterError) and problem.fix else ""
        raise VolumeError(f"{problem}{fix}") from None
