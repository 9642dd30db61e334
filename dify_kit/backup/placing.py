"""Where the volumes of a stack are: on a Docker engine, or in the namespace of a cluster, as its settings say."""

from dify_kit.backup.claims import ClaimVolumes
from dify_kit.backup.stores import Volumes
from dify_kit.backup.volumes import EngineVolumes, connect
from dify_kit.stack.cluster_objects import explained
from infra.catalogue.services import SERVICES
from infra.engine.cluster import Cluster
from infra.settings.stack import Settings

# Its image has GNU tar.
_HELPER = "api"


def store_of(settings: Settings) -> Volumes:
    """Return the volumes of a stack with these settings. Raises KitError."""
    chosen = settings.kubernetes
    if chosen is None:
        return EngineVolumes(connect(), settings.stack)
    from infra.platforms.kubernetes.images import NodeImages  # noqa: PLC0415  # imports Pulumi

    with explained():
        return ClaimVolumes(
            cluster=Cluster.of(chosen.kubeconfig, chosen.context),
            chosen=chosen,
            stack=settings.stack,
            image=NodeImages(settings, settings.dify, chosen).id_of(SERVICES[_HELPER].image),
        )
