"""The services of a stack, each stated once.

A service of a new kind is one row here, its volumes and networks in `infra.catalogue.volumes` and
`infra.catalogue.networks`, its image in `infra.catalogue.images`, and its environment in `infra.services.environment`.
Everything else is derived (`infra.catalogue.selection`): what the program creates, the images that it needs, the limits
and variables that the settings accept, the volumes that `down` removes, the ports that the smoke tests probe.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypedDict

from infra.catalogue import container_paths as paths
from infra.catalogue import health, networks, ports
from infra.catalogue.data_services import (
    DATA_PROXY,
    DATA_SERVICES,
    DATABASE,
    REDIS,
    REDIS_CAPABILITIES,
    VECTOR_STORES,
)
from infra.catalogue.service import HealthCheck, Limits, Mount, Part, Service, Tier

# Names that other modules need. `GATEWAY` is the OAuth gateway, `GATEWAY_REDIS` its own Redis.
API, NGINX, CERTBOT, PLUGIN_DAEMON = "api", "nginx", "certbot", "plugin-daemon"
# The owner of the LLM proxy's counts.
LLM_EDGE = "llm-edge"
GATEWAY, GATEWAY_REDIS, LITELLM = "gateway", "gateway-redis", "litellm"


class _NginxRuns(TypedDict):
    """What the two services of nginx have in common."""

    health: HealthCheck
    templates: tuple[str, ...]
    user: str
    entrypoint: tuple[str, ...]
    tmpfs: Mapping[str, str]
    read_only: bool
    stop_signal: str
    stop_grace: int
    ready_timeout: int


_APP_STORAGE = Mount(volume="app_storage", path="/app/api/storage")
_CERTIFICATE_MOUNTS = (
    Mount(volume="acme", path=paths.LINEAGES),
    Mount(volume="certificates", path=paths.PUBLISHED),
    Mount(volume="challenges", path=paths.CHALLENGES),
)
_NGINX_RUNS: _NginxRuns = {
    "health": health.answers_http(ports.EDGE_STATUS, "/healthz"),
    "templates": ("nginx/nginx.conf.j2",),
    "user": str(paths.EDGE_UID),
    "entrypoint": ("sh", "-c"),
    "tmpfs": {
        paths.EDGE_RUN_DIRECTORY: (
            f"size={paths.EDGE_RUN_MEGABYTES}m,mode=0700,uid={paths.EDGE_UID},gid={paths.EDGE_UID}"
        )
    },
    "read_only": True,
    # nginx finishes the requests in flight.
    "stop_signal": "SIGQUIT",
    "stop_grace": 30,
    "ready_timeout": 60,
}
_SQUID = ("squid", "-NYC", "-f", paths.SQUID_CONFIG)

# In the order in which they start. Memory is about four times what a real Dify was seen to need at rest (api 350 to
# 470 MiB, worker 370, the database up to 140): work fits, and a leak is stopped.
SERVICES: Mapping[str, Service] = MappingProxyType(
    {
        **DATA_SERVICES,
        "migration": Service(
            image="api",
            tier=Tier.DIFY,
            limits=Limits(memory=1024),
            networks=(networks.DATA,),
            after=(DATABASE, REDIS, DATA_PROXY),
            mounts=(_APP_STORAGE,),
            variables=API,
            job=True,
            ready_timeout=600,
        ),
        "web": Service(
            image="web",
            tier=Tier.DIFY,
            part=Part.RELEASE,
            required=True,
            limits=Limits(memory=1024),
            networks=(networks.APP,),
            port=ports.WEB,
            health=health.WEB,
            variables="web",
        ),
        "ssrf-proxy": Service(
            image="squid",
            tier=Tier.DIFY,
            part=Part.RELEASE,
            required=True,
            limits=Limits(memory=256),
            networks=(networks.SSRF_PROXY, networks.APP),
            port=ports.SQUID,
            health=health.SQUID,
            templates=("squid/sandbox.conf.j2",),
            user=str(paths.SQUID_UID),
            entrypoint=_SQUID,
        ),
        "sandbox": Service(
            image="sandbox",
            tier=Tier.DIFY,
            part=Part.RELEASE,
            required=True,
            limits=Limits(memory=1024, pids=1024),
            networks=(networks.SSRF_PROXY,),
            mounts=(Mount(volume="sandbox_dependencies", path="/dependencies"),),
            port=ports.SANDBOX,
            health=health.answers_http(ports.SANDBOX, "/health"),
            variables="sandbox",
            go=True,
            # It isolates user code by chroot, setuid and seccomp, which need the engine's default set.
            capabilities=None,
        ),
        PLUGIN_DAEMON: Service(
            image="plugin_daemon",
            tier=Tier.DIFY,
            part=Part.RELEASE,
            required=True,
            # A process with its threads for each plugin.
            limits=Limits(memory=2048, pids=4096),
            networks=(networks.APP, networks.DATA),
            after=(DATABASE, REDIS, DATA_PROXY),
            mounts=(Mount(volume="plugin_storage", path="/app/storage"),),
            port=ports.PLUGIN_DAEMON,
            health=health.answers_http(ports.PLUGIN_DAEMON, "/health/check"),
            variables="plugin-daemon",
            go=True,
            # It installs plugins with their own users and tools.
            capabilities=None,
            # PID 1 of its image is a shell, which ignores SIGTERM: every stop would last the whole grace.
            init=True,
        ),
        "agent-ssrf-proxy": Service(
            image="squid",
            tier=Tier.DIFY,
            part=Part.RELEASE,
            limits=Limits(memory=256),
            networks=(networks.LOCAL_SANDBOX_PROXY, networks.APP),
            port=ports.SQUID,
            health=health.SQUID,
            templates=("squid/agent.conf.j2",),
            user=str(paths.SQUID_UID),
            entrypoint=_SQUID,
        ),
        "local-sandbox": Service(
            image="local_sandbox",
            tier=Tier.DIFY,
            part=Part.RELEASE,
            limits=Limits(memory=2048, pids=1024),
            networks=(networks.AGENT_SANDBOX, networks.LOCAL_SANDBOX_PROXY),
            mounts=(
                Mount(volume="local_sandbox_home", path="/home/dify"),
                Mount(volume="local_sandbox_workspace", path="/workspace"),
            ),
            port=ports.LOCAL_SANDBOX,
            health=health.answers_http(ports.LOCAL_SANDBOX, "/healthz"),
            variables="local-sandbox",
            capabilities=None,
        ),
        "agent-backend": Service(
            image="agent_backend",
            tier=Tier.DIFY,
            part=Part.RELEASE,
            limits=Limits(memory=1024),
            networks=(networks.APP, networks.DATA, networks.AGENT_SANDBOX),
            after=(REDIS, DATA_PROXY, "plugin-daemon", "local-sandbox"),
            port=ports.AGENT_BACKEND,
            health=health.accepts_connections(ports.AGENT_BACKEND),
            variables="agent-backend",
        ),
        API: Service(
            image="api",
            tier=Tier.DIFY,
            part=Part.RELEASE,
            required=True,
            limits=Limits(memory=2048),
            networks=(networks.APP, networks.DATA, networks.SSRF_PROXY),
            # Also every server that it has a key of: a new key reaches the server first.
            after=("migration", REDIS, PLUGIN_DAEMON, "agent-backend", "sandbox", *VECTOR_STORES),
            mounts=(_APP_STORAGE,),
            port=ports.API,
            health=health.API,
            variables=API,
            imports_dify=True,
            # Streamed answers end within this time, or are cut.
            stop_grace=60,
            ready_timeout=health.DIFY_START_SECONDS,
        ),
        "worker": Service(
            image="api",
            tier=Tier.DIFY,
            part=Part.RELEASE,
            required=True,
            limits=Limits(memory=2048),
            # Unlike worker-beat it runs code nodes; squid is on `app` too.
            networks=(networks.APP, networks.DATA, networks.SSRF_PROXY),
            after=("migration", REDIS, PLUGIN_DAEMON, "agent-backend", "sandbox", *VECTOR_STORES),
            mounts=(_APP_STORAGE,),
            health=health.celery("worker"),
            variables=API,
            imports_dify=True,
            stop_grace=60,
            ready_timeout=health.DIFY_START_SECONDS,
        ),
        "api-websocket": Service(
            image="api",
            tier=Tier.DIFY,
            part=Part.RELEASE,
            limits=Limits(memory=1024),
            networks=(networks.APP, networks.DATA),
            after=("migration", REDIS),
            mounts=(_APP_STORAGE,),
            port=ports.API,
            health=health.API,
            variables=API,
            imports_dify=True,
            stop_grace=30,
            ready_timeout=health.DIFY_START_SECONDS,
        ),
        "worker-beat": Service(
            image="api",
            tier=Tier.DIFY,
            part=Part.RELEASE,
            required=True,
            limits=Limits(memory=1024),
            networks=(networks.APP, networks.DATA),
            after=("migration", REDIS),
            health=health.celery("beat"),
            variables=API,
            imports_dify=True,
            stop_grace=60,
            ready_timeout=health.DIFY_START_SECONDS,
        ),
        GATEWAY_REDIS: Service(
            image="redis",
            tier=Tier.OAUTH,
            part=Part.GATEWAY,
            limits=Limits(memory=256),
            networks=(networks.OAUTH_DATA,),
            mounts=(Mount(volume="gateway_redis", path="/data"),),
            port=ports.REDIS,
            holds_data=True,
            health=health.REDIS,
            templates=("data/redis.conf.j2",),
            capabilities=REDIS_CAPABILITIES,
            stop_grace=60,
        ),
        GATEWAY: Service(
            image="gateway",
            tier=Tier.OAUTH,
            part=Part.GATEWAY,
            # 96 MiB with 10,000 clients, and for a moment the old ones beside the new ones.
            limits=Limits(memory=256),
            networks=(networks.OAUTH, networks.OAUTH_DATA, networks.ISSUERS),
            after=(GATEWAY_REDIS,),
            # The engine writes the files as root: the gateway's own user cannot change them.
            mounts=(Mount(volume="gateway", path=paths.GATEWAY_DIRECTORY),),
            port=ports.GATEWAY,
            health=health.answers_http(ports.GATEWAY_INTERNAL, "/healthz"),
            user=str(paths.GATEWAY_UID),
            # A stopped service has no name: a thread that looks it up would wait ten seconds for that answer.
            dns_options=("timeout:1", "attempts:1"),
            read_only=True,
            stop_grace=15,
            ready_timeout=60,
        ),
        LITELLM: Service(
            image="litellm",
            tier=Tier.LLM,
            part=Part.LITELLM,
            # One worker has 320 MiB at its start, and 325 after some load.
            limits=Limits(memory=1024),
            least_memory=512,
            networks=(networks.LITELLM, networks.LITELLM_UPSTREAMS),
            mounts=(Mount(volume="litellm", path=paths.LITELLM_DIRECTORY),),
            port=ports.LITELLM,
            health=health.LITELLM,
            templates=("litellm/config.yaml.j2",),
            user=str(paths.LITELLM_UID),
            entrypoint=("sh", "-c"),
            tmpfs={"/tmp": f"size=64m,mode=0700,uid={paths.LITELLM_UID},gid={paths.LITELLM_UID}"},  # noqa: S108
            read_only=True,
            # It finishes the requests in flight.
            stop_grace=30,
        ),
        "certificates": Service(
            image="certbot",
            tier=Tier.EDGE,
            part=Part.CERTBOT,
            limits=Limits(memory=256),
            mounts=_CERTIFICATE_MOUNTS,
            job=True,
            user="0",
            entrypoint=("python3", paths.CERTIFICATES_SCRIPT),
            capabilities=("CHOWN", "DAC_OVERRIDE", "FOWNER"),
            ready_timeout=60,
        ),
        LLM_EDGE: Service(
            image="nginx",
            tier=Tier.EDGE,
            part=Part.LLM_OWNER,
            limits=Limits(memory=512),
            networks=(networks.LLM_EDGE, networks.OAUTH, networks.LITELLM),
            after=(GATEWAY, LITELLM),
            mounts=(
                Mount(volume="edge", path=paths.EDGE_DIRECTORY),
                Mount(volume="edge_temp", path="/tmp"),  # noqa: S108  # the container's own
                Mount(volume="llm_usage", path=paths.USAGE_DIRECTORY),
            ),
            port=ports.EDGE_OWNER,
            **_NGINX_RUNS,
        ),
        NGINX: Service(
            image="nginx",
            tier=Tier.EDGE,
            part=Part.RELEASE,
            required=True,
            limits=Limits(memory=512),
            networks=(networks.APP, networks.OAUTH, networks.LITELLM),
            after=("web", GATEWAY, LITELLM, "certificates", LLM_EDGE),
            mounts=(
                Mount(volume="edge", path=paths.EDGE_DIRECTORY),
                Mount(volume="edge_temp", path="/tmp"),  # noqa: S108  # the container's own
                Mount(volume="llm_usage", path=paths.USAGE_DIRECTORY, part=Part.LLM),
                Mount(volume="certificates", path=paths.PUBLISHED, read_only=True, part=Part.CERTBOT),
                Mount(volume="challenges", path=paths.CHALLENGES, read_only=True, part=Part.CERTBOT),
            ),
            port=ports.EDGE_HTTP,
            **_NGINX_RUNS,
        ),
        CERTBOT: Service(
            image="certbot",
            tier=Tier.EDGE,
            part=Part.CERTBOT,
            limits=Limits(memory=256),
            networks=(networks.ACME,),
            after=(NGINX,),
            mounts=_CERTIFICATE_MOUNTS,
            health=health.CERTBOT,
            # With its group: certbot's image has no such user.
            user=f"{paths.EDGE_UID}:{paths.EDGE_UID}",
            entrypoint=("python3", paths.CERTIFICATES_SCRIPT),
            tmpfs={"/tmp": "size=64m,mode=1777"},  # noqa: S108  # the container's own
            ready_timeout=health.CERTIFICATE_SECONDS,
        ),
    }
)
