"""The release catalogue: what each supported Dify release consists of.

Data, not logic: adding a release touches this file only. Tags are those of the release's own compose file.
A digest stands where a public source pins it; the comment beside it names the source.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

DATA_SERVICES = frozenset({"db_postgres", "redis"})
VECTOR_STORES = frozenset({"weaviate", "qdrant", "pgvector"})
JOBS = frozenset({"init_permissions", "migration"})
# Ours, in every release: the OAuth gateway.
GATEWAY = "gateway"
# LiteLLM's proxy, of `dify:llm.engine: litellm`.
LITELLM = "litellm"
# Configured by files or by the kit alone: variables would reach nobody.
WITHOUT_ENVIRONMENT = frozenset(
    {
        "db_postgres",
        "redis",
        "pgvector",
        "init_permissions",
        "nginx",
        "ssrf_proxy",
        "agent_ssrf_proxy",
        GATEWAY,
        LITELLM,
    }
)

_CLASSIC_SERVICES = frozenset(
    {"api", "worker", "worker_beat", "web", "sandbox", "plugin_daemon", "ssrf_proxy", "nginx"}
)
_AGENT_SERVICES = frozenset({"agent_backend", "local_sandbox"})


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image by its registry name. `digest` is `sha256:...`, or None where no public source pins it."""

    repository: str
    tag: str
    digest: str | None = None


@dataclass(frozen=True, kw_only=True)
class Route:
    """A path prefix of the edge, the policy group it belongs to, and the service that answers."""

    prefix: str
    group: str
    service: str


@dataclass(frozen=True, kw_only=True)
class Release:
    """One Dify release.

    `images` maps a role to its image; `services` are the long-running ones without data tier and vector
    store; `renamed` maps a variable's current name to the name this release knows. `celery_app` is what its
    worker's health command asks.
    """

    version: str
    images: Mapping[str, Image]
    services: frozenset[str]
    routes: tuple[Route, ...]
    renamed: Mapping[str, str]
    # It imports less than the app itself, so asking costs less; older releases do not have it.
    celery_app: str = "celery_healthcheck.celery"

    def has(self, service: str) -> bool:
        """Tell whether this release runs the service."""
        return service in self.services

    @property
    def number(self) -> int:
        """The version as a number that grows with it: 1.17.1 is 1017001."""
        major, minor, patch = (int(part) for part in self.version.split("."))
        return (major * 1000 + minor) * 1000 + patch


# Not a part of Dify: the version that containers/litellm is made of where images are built. 1.82.7, 1.82.8 and 1.107.0
# were malicious; releases from 1.106.6 on are signed with the key that came after that.
LITELLM_IMAGE = Image(repository="ghcr.io/berriai/litellm", tag="v1.106.12")

# Pinned in heyvaldemar/dify-traefik-letsencrypt-docker-compose at 14683472, unless noted.
_THIRD_PARTY: Mapping[str, Image] = MappingProxyType(
    {
        "postgres": Image(
            repository="postgres",
            tag="15-alpine",
            digest="sha256:fe0737ba566a2c5b2a28f34433c0a423261900ec17b9bf7ad115e1aae7e57f1b",
        ),
        "redis": Image(
            repository="redis",
            tag="7.4-alpine",
            digest="sha256:ff02b58f971e7d7d156a1267e283fcbbeee91773b6aa36c49dac28ecfe28eadf",
        ),
        "weaviate": Image(
            repository="semitechnologies/weaviate",
            tag="1.27.0",
            digest="sha256:53fa576934f8e2c9130dc3a61a0f9b7d9330fe0ff456ccb37db05d03b700abc9",
        ),
        LITELLM: LITELLM_IMAGE,
        # Not pinned by digest in a public source that we know.
        "qdrant": Image(repository="langgenius/qdrant", tag="v1.8.3"),
        "pgvector": Image(repository="pgvector/pgvector", tag="pg16"),
        "certbot": Image(repository="certbot/certbot", tag="v4.0.0"),
        "squid": Image(
            repository="ubuntu/squid",
            tag="6.6-24.04_edge",
            digest="sha256:8a3baed477e2c282ab8aa5edad442f69873246964f225c5c2ae8364b6610963c",
        ),
        "nginx": Image(
            repository="nginx",
            tag="1.29",
            digest="sha256:1881968aff6f7cdcc4b888c00a11f4ce241ad7ec957e0cb4a9e19e93a3ff87ea",
        ),
        "busybox": Image(
            repository="busybox",
            tag="1.37",
            digest="sha256:9db7b59979c38555a39def84a31fb98b5296952f9e3afd4f6f11f05b07adfab0",
        ),
    }
)

# Majors of PostgreSQL behind the role `postgres`, by where images come from.
POSTGRES_MAJOR: Mapping[str, int] = MappingProxyType({"registry": 15, "mirror": 15, "local": 17})


def _dify_images(
    version: str, *, plugin_daemon: Image, sandbox: Image, pins: Mapping[str, str] = MappingProxyType({})
) -> Mapping[str, Image]:
    """Return the images of a release; `pins` maps a role to the digest of its image."""
    repositories = {"api": "langgenius/dify-api", "web": "langgenius/dify-web"}
    own = {
        role: Image(repository=repository, tag=version, digest=pins.get(role))
        for role, repository in repositories.items()
    }
    return MappingProxyType({**_THIRD_PARTY, **own, "plugin_daemon": plugin_daemon, "sandbox": sandbox})


def _agent_images(version: str, pins: Mapping[str, str] = MappingProxyType({})) -> dict[str, Image]:
    return {
        "agent_backend": Image(
            repository="langgenius/dify-agent-backend", tag=version, digest=pins.get("agent_backend")
        ),
        "local_sandbox": Image(
            repository="langgenius/dify-agent-local-sandbox", tag=version, digest=pins.get("local_sandbox")
        ),
    }


_SANDBOX_0_2_15 = Image(
    repository="langgenius/dify-sandbox",
    tag="0.2.15",
    digest="sha256:750e1111426ef31a9217b81c98cccfb750f17b182af3221102e420afa9f0928e",
)
_PLUGIN_DAEMON_0_6_10 = Image(
    repository="langgenius/dify-plugin-daemon",
    tag="0.6.10-local",
    digest="sha256:34412a22d1e1d1a6c73727fef88cffbcdd9be7a21bf9ad3076b4bf5c1b88fd9b",
)

_API_ROUTES = (
    Route(prefix="/console/api", group="console", service="api"),
    Route(prefix="/api", group="api", service="api"),
    Route(prefix="/v1", group="v1", service="api"),
    Route(prefix="/files", group="files", service="api"),
    Route(prefix="/mcp", group="mcp", service="api"),
    Route(prefix="/triggers", group="triggers", service="api"),
)
_OPENAPI_ROUTE = Route(prefix="/openapi", group="openapi", service="api")
_SOCKET_ROUTE = Route(prefix="/socket.io/", group="socket", service="api_websocket")
_OTHER_ROUTES = (
    Route(prefix="/e/", group="endpoints", service="plugin_daemon"),
    Route(prefix="/explore", group="explore", service="web"),
    Route(prefix="/", group="web", service="web"),
)

_ALL = (
    Release(
        version="1.17.1",
        images={
            **_dify_images(
                "1.17.1",
                plugin_daemon=_PLUGIN_DAEMON_0_6_10,
                sandbox=_SANDBOX_0_2_15,
                # A public build record cites it as the multi-platform digest.
                pins={"api": "sha256:ceede5b903afaa20348f7ad80ebf847379dc56d886a99b9ec6a08913dacd7732"},
            ),
            **_agent_images("1.17.1"),
        },
        services=_CLASSIC_SERVICES | _AGENT_SERVICES | {"api_websocket", "agent_ssrf_proxy"},
        routes=(*_API_ROUTES, _OPENAPI_ROUTE, _SOCKET_ROUTE, *_OTHER_ROUTES),
        renamed={},
    ),
    Release(
        version="1.17.0",
        images={
            **_dify_images(
                "1.17.0",
                plugin_daemon=_PLUGIN_DAEMON_0_6_10,
                sandbox=_SANDBOX_0_2_15,
                pins={
                    "api": "sha256:52be6088dd842e01bc58cdb23a701266a55aa3814b24057c18adfb4d351f8079",
                    "web": "sha256:6a81fcdd82b51f6fe3436cdc25d1a358cd301a2c3457554bf96de7f5f32a6b5a",
                },
            ),
            **_agent_images(
                "1.17.0",
                pins={
                    "agent_backend": (
                        "sha256:bdb2ed516bd3c872007c128f67c3a3218c6bf20fd6bae32f274ba3cb884ec4d6"
                    ),
                    "local_sandbox": (
                        "sha256:316279a82ead635306071d2b6a2ee15395daec10e0348f2002c101403d107646"
                    ),
                },
            ),
        },
        services=_CLASSIC_SERVICES | _AGENT_SERVICES | {"api_websocket", "agent_ssrf_proxy"},
        routes=(*_API_ROUTES, _OPENAPI_ROUTE, _SOCKET_ROUTE, *_OTHER_ROUTES),
        renamed={},
    ),
    Release(
        version="1.14.2",
        images=_dify_images(
            "1.14.2",
            plugin_daemon=Image(repository="langgenius/dify-plugin-daemon", tag="0.6.1-local"),
            sandbox=_SANDBOX_0_2_15,
        ),
        services=_CLASSIC_SERVICES | {"api_websocket"},
        routes=(*_API_ROUTES, _SOCKET_ROUTE, *_OTHER_ROUTES),
        renamed={"DEPLOYMENT_EDITION": "EDITION"},
    ),
    Release(
        version="1.12.1",
        images=_dify_images(
            "1.12.1",
            plugin_daemon=Image(repository="langgenius/dify-plugin-daemon", tag="0.5.3-local"),
            sandbox=Image(repository="langgenius/dify-sandbox", tag="0.2.12"),
        ),
        services=_CLASSIC_SERVICES,
        routes=(*_API_ROUTES, *_OTHER_ROUTES),
        renamed={"DEPLOYMENT_EDITION": "EDITION"},
        celery_app="app.celery",
    ),
)

RELEASES: Mapping[str, Release] = MappingProxyType({release.version: release for release in _ALL})
