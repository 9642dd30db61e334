"""Volumes: claims for what outlives a pod, directories of the pod for what does not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.catalogue.service import Keep
from infra.platforms.kubernetes.names import dns_label
from infra.services.spec import ServiceSpec

READ_WRITE_ONCE, READ_WRITE_MANY = "ReadWriteOnce", "ReadWriteMany"
# The volume that several services mount: Dify's file storage.
SHARED = frozenset({"app_storage"})
# Pulumi waits five minutes for a claim that binds only once a pod uses it, and hangs at each later change of it.
UNWAITED = {"pulumi.com/skipAwait": "true"}


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A volume of a stack. ``shared`` is the access mode ReadWriteMany; ``claimed`` is false for a pod's directory."""

    name: str
    claimed: bool
    shared: bool = False

    @property
    def one_node(self) -> bool:
        """Whether only pods of one node can mount it."""
        return self.claimed and not self.shared


def volume(name: str, keep: Keep, *, shared_class: str) -> Volume:
    """Return the volume of a logical name. Ephemeral ones are filled again by each pod."""
    return Volume(name=name, claimed=keep is not Keep.EPHEMERAL, shared=bool(shared_class) and name in SHARED)


def claim(
    one: Volume, *, labels: Mapping[str, str], storage_class: str, shared_class: str, gigabytes: int
) -> dict[str, Any]:
    """Return the PersistentVolumeClaim of a volume; without a class it is of the cluster's default one."""
    chosen = shared_class if one.shared else storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": dns_label(one.name),
            "labels": dict(labels),
            "annotations": dict(UNWAITED),
        },
        "spec": {
            "accessModes": [READ_WRITE_MANY if one.shared else READ_WRITE_ONCE],
            "resources": {"requests": {"storage": f"{gigabytes}Gi"}},
            **({"storageClassName": chosen} if chosen else {}),
        },
    }


def pod_volume(one: Volume) -> dict[str, Any]:
    """Return a volume as a pod names it."""
    name = f"volume-{dns_label(one.name)}"
    if one.claimed:
        return {"name": name, "persistentVolumeClaim": {"claimName": dns_label(one.name)}}
    return {"name": name, "emptyDir": {}}


def exclusive(spec: ServiceSpec, volumes: Mapping[str, Volume]) -> bool:
    """Tell whether two pods of a service must not run at the same time: it alone writes to a claim."""
    mounted = (volumes[mount.volume] for mount in spec.mounts if not mount.read_only)
    return any(one.claimed and one.name not in SHARED for one in mounted)
