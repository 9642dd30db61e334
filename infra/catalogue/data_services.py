"""The services of the data tier: rows of `infra.catalogue.services`."""

from collections.abc import Mapping
from types import MappingProxyType

from infra.catalogue import container_paths as paths
from infra.catalogue import health, networks, ports
from infra.catalogue.service import Limits, Mount, Part, Service, Tier

# Each is replaced by an external server with `dify:database` or `dify:redis`, which both proxies pass connections to.
DATABASE, REDIS = "db-postgres", "redis"
DATA_PROXY, DATA_EGRESS = "data-proxy", "data-egress"
# A stack has one of them (`dify:vectorStore`), or uses a server outside of it (`dify:vectorServer`).
VECTOR_STORES = ("weaviate", "qdrant", "pgvector")
# Stores that the kit does not run: always a server outside.
OUTSIDE_VECTOR_STORES = ("milvus", "opensearch", "elasticsearch")

# PostgreSQL's entrypoint starts as root, takes ownership of its directory and drops to `postgres`.
_POSTGRES_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "SETGID", "SETUID")
# The entrypoint of Redis starts as root and drops to the user that owns the files.
REDIS_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "SETGID", "SETUID")
_STREAM_PROXY = ("nginx", "-e", "stderr", "-g", "daemon off;", "-c", paths.STREAM_PROXY_CONFIG)

DATA_SERVICES: Mapping[str, Service] = MappingProxyType(
    {
        "init-permissions": Service(
            image="busybox",
            tier=Tier.DATA,
            limits=Limits(memory=64),
            mounts=(Mount(volume="app_storage", path="/app_storage"),),
            job=True,
            user="0",
            entrypoint=("sh", "-c"),
            capabilities=("CHOWN", "DAC_OVERRIDE", "FOWNER"),
            ready_timeout=120,
        ),
        DATABASE: Service(
            image="postgres",
            tier=Tier.DATA,
            limits=Limits(memory=1024),
            networks=(networks.DATA,),
            after=("init-permissions",),
            mounts=(Mount(volume="postgres", path=paths.POSTGRES_DATA),),
            port=ports.POSTGRES,
            holds_data=True,
            health=health.POSTGRES,
            capabilities=_POSTGRES_CAPABILITIES,
            stop_grace=60,
        ),
        REDIS: Service(
            image="redis",
            tier=Tier.DATA,
            limits=Limits(memory=512),
            networks=(networks.DATA,),
            after=("init-permissions",),
            mounts=(Mount(volume="redis", path="/data"),),
            port=ports.REDIS,
            holds_data=True,
            health=health.REDIS,
            templates=("data/redis.conf.j2",),
            capabilities=REDIS_CAPABILITIES,
            stop_grace=60,
        ),
        "weaviate": Service(
            image="weaviate",
            tier=Tier.DATA,
            part=Part.VECTOR_STORE,
            limits=Limits(memory=2048, pids=2048),
            networks=(networks.DATA,),
            after=("init-permissions",),
            mounts=(Mount(volume="vector", path="/var/lib/weaviate"),),
            port=ports.WEAVIATE,
            holds_data=True,
            health=health.WEAVIATE,
            variables="weaviate",
            variables_complete=False,
            go=True,
            # It writes what it holds in memory before it ends, and must never be killed while it does.
            stop_grace=300,
        ),
        "qdrant": Service(
            image="qdrant",
            tier=Tier.DATA,
            part=Part.VECTOR_STORE,
            limits=Limits(memory=1024, pids=2048),
            networks=(networks.DATA,),
            after=("init-permissions",),
            mounts=(Mount(volume="vector", path="/qdrant/storage"),),
            port=ports.QDRANT,
            holds_data=True,
            health=health.QDRANT,
            variables="qdrant",
            variables_complete=False,
            stop_grace=60,
        ),
        "pgvector": Service(
            image="pgvector",
            tier=Tier.DATA,
            part=Part.VECTOR_STORE,
            limits=Limits(memory=1024),
            networks=(networks.DATA,),
            after=("init-permissions",),
            mounts=(Mount(volume="vector", path=paths.POSTGRES_DATA),),
            port=ports.POSTGRES,
            holds_data=True,
            health=health.POSTGRES,
            capabilities=_POSTGRES_CAPABILITIES,
            stop_grace=60,
        ),
        # The only one with a route to the external servers. On another network than the clients, where the name of a
        # server is the proxy itself.
        DATA_EGRESS: Service(
            image="nginx",
            tier=Tier.DATA,
            part=Part.EXTERNAL_DATA,
            limits=Limits(memory=128),
            networks=(networks.DATA_PROXY, networks.DATA_EGRESS),
            health=health.STREAM_PROXY,
            templates=("data/stream_proxy.conf.j2",),
            user=str(paths.EDGE_UID),
            entrypoint=_STREAM_PROXY,
            stop_signal="SIGQUIT",
            ready_timeout=60,
        ),
        DATA_PROXY: Service(
            image="nginx",
            tier=Tier.DATA,
            part=Part.EXTERNAL_DATA,
            limits=Limits(memory=128),
            networks=(networks.DATA, networks.DATA_PROXY),
            after=(DATA_EGRESS,),
            health=health.STREAM_PROXY,
            templates=("data/stream_proxy.conf.j2",),
            user=str(paths.EDGE_UID),
            entrypoint=_STREAM_PROXY,
            stop_signal="SIGQUIT",
            ready_timeout=60,
        ),
    }
)
