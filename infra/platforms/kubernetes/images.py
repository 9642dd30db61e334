"""The images of a stack as the nodes of a cluster pull them, by name."""

from infra.catalogue.images import own_roles
from infra.catalogue.releases import Release
from infra.platforms.images import local_name, reference
from infra.settings.kubernetes import PRELOADED, Kubernetes
from infra.settings.stack import Settings


def node_name(role: str, registry: str) -> str:
    """Return the name by which nodes pull an image that the kit builds."""
    name = local_name(role)
    return name if registry in {"", PRELOADED} else f"{registry}/{name}"


class NodeImages:
    """The names of a stack's images. Nodes pull them; `dify-kit images push` pushes those that the kit builds."""

    def __init__(self, settings: Settings, release: Release, cluster: Kubernetes) -> None:
        self._settings = settings
        self._release = release
        self._registry = cluster.registry

    def id_of(self, role: str) -> str:
        """Return the name of a role's image."""
        if self._settings.images != "local" and role not in own_roles():
            return reference(role, self._settings, self._release)
        return node_name(role, self._registry)
