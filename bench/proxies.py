"""The proxies that are measured, each with its nearest equal configuration, and the request they all get."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2

from bench import peers
from infra.catalogue.project import declared
from infra.catalogue.releases import RELEASES
from infra.catalogue.selection import port_of
from infra.edge.context import DIRECT, EdgeContext, edge_context
from infra.edge.live_files import completed
from infra.edge.paths import EDGE_DIRECTORY, RUN_DIRECTORY
from infra.edge.render import edge_configuration
from infra.settings.stack import Settings
from support.configuration import settings

CONFIGS = Path(__file__).parent / "configs"
UPSTREAM_PORT = 5001
BARE_PORT, CADDY_PORT, TRAEFIK_PORT, LOGGING_PORT, QUIET_PORT, QUIET_STATUS_PORT = range(9001, 9007)
ORIGIN = "https://app.example.com"
NGINX_UID = "101"
# High enough that the load never reaches them: what they cost is measured, and nobody is refused.
UNREACHED: Mapping[str, int] = MappingProxyType(
    {
        "requests": 1_000_000,
        "seconds": 1,
        "concurrent": 10_000,
        "addressRequests": 1_000_000,
        "addressSeconds": 1,
        "addressConcurrent": 10_000,
    }
)
# What the edge is measured with, as far as this checkout knows the settings: an older one has fewer.
EDGE_SETTINGS: Mapping[str, Any] = MappingProxyType(
    {"cors": {"v1": [ORIGIN]}, "rateLimits": {"v1": dict(UNREACHED)}}
)
# What each one has of the edge's work, for the reader of the figures.
FEATURES: Mapping[str, str] = MappingProxyType(
    {
        "bare": "nginx: proxy_pass over kept connections, and nothing else: no access log, no header, no CORS",
        "bare-log": "the same with the access log that every nginx image has by default, on stdout",
        "edge": "everything that the kit renders: CORS by allow-list, request id, JSON access log, errors, "
        "upstream found again when it moves",
        "edge-quiet": "the edge with `dify:accessLog: off`: what bare nginx without a log is to be compared with",
        "caddy": "CORS for one origin, request id, JSON access log, body size; its core has no rate limit",
        "traefik": "CORS for one origin, rate and concurrency limit per credential, JSON access log; makes no request "
        "id, has no body size limit without buffering",
    }
)


@dataclass(frozen=True, kw_only=True)
class Request:
    """The request that everyone gets: a call with an API key, from a page of an allowed origin.

    `script` is a Lua file in the load's container that makes wrk send others. `body` is JSON and makes it a POST, in
    the first request that waits for the proxy; wrk sends what its script says.
    """

    host: str
    path: str = "/v1/parameters"
    authorization: str = "Bearer app-BenchBenchBenchBench0000"
    script: str = ""
    scheme: str = "http"
    body: str = ""

    @property
    def headers(self) -> Mapping[str, str]:
        """The header fields."""
        extra = {"Content-Type": "application/json"} if self.body else {}
        return {"Host": self.host, "Authorization": self.authorization, "Origin": ORIGIN, **extra}


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """One proxy: its container, and where it listens on 127.0.0.1.

    `files`: path in the container -> text. `programs`: path in the container -> program of this machine.
    """

    name: str
    port: int
    command: tuple[str, ...]
    request: Request
    files: Mapping[str, str] = field(default_factory=dict)
    programs: Mapping[str, Path] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    user: str = NGINX_UID
    # The kit's own nginx when empty.
    image: str = ""
    memory: str = "512m"
    start_seconds: int = 30

    @property
    def url(self) -> str:
        """Where the load goes."""
        return f"{self.request.scheme}://127.0.0.1:{self.port}{self.request.path}"


def configured(name: str, **context: object) -> str:
    """Render a file of bench/configs."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(CONFIGS),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  # configuration files, not HTML
        keep_trailing_newline=True,
    )
    return environment.get_template(f"{name}.j2").render(context)


def edge_settings() -> Settings:
    """Return the settings of the measured edge."""
    return settings({key: value for key, value in EDGE_SETTINGS.items() if key in declared()})


def measured_context() -> EdgeContext:
    """Return what the measured edge is rendered from."""
    found = edge_settings()
    return edge_context(found, RELEASES[found.release])


def worker_count(context: EdgeContext) -> int:
    """Return how many cores the edge uses; its peers get as many."""
    return int(context.workers) if context.workers.isdigit() else len(os.sched_getaffinity(0))


def bare(context: EdgeContext) -> Proxy:
    """Return nginx that only passes on."""
    return _bare(context, "bare", BARE_PORT, "off")


def bare_logging(context: EdgeContext) -> Proxy:
    """Return nginx that passes on and logs as its images do by default."""
    return _bare(context, "bare-log", LOGGING_PORT, "/dev/stdout combined")


def _bare(context: EdgeContext, name: str, port: int, log: str) -> Proxy:
    path = "/bench/bare.conf"
    return Proxy(
        name=name,
        port=port,
        command=("nginx", "-e", "stderr", "-c", path, "-g", "daemon off;"),
        request=Request(host=context.server_names[0]),
        files={path: configured("bare.conf", workers=worker_count(context), port=port, log=log)},
    )


def edge(context: EdgeContext, files: Mapping[str, str] | None = None) -> Proxy:
    """Return the kit's edge, as it goes live (`live_files`); `files` replaces that, for experiments."""
    return Proxy(
        name="edge",
        port=context.http_port,
        command=("nginx", "-e", "stderr", "-c", f"{EDGE_DIRECTORY}/nginx.conf", "-g", "daemon off;"),
        request=Request(host=context.server_names[0]),
        files=files or live_files(context),
        tmpfs={RUN_DIRECTORY: f"uid={NGINX_UID},mode=0700"},
    )


def edge_quiet(context: EdgeContext) -> Proxy:
    """Return the kit's edge without its access log, at ports of its own."""
    quiet = replace(context, access_log="off", http_port=QUIET_PORT, status_port=QUIET_STATUS_PORT)
    return replace(edge(quiet), name="edge-quiet")


def live_files(context: EdgeContext, address: str = "127.0.0.1") -> dict[str, str]:
    """Return the files that `up` would put into the container, with the address of the upstream."""
    rendered = edge_configuration(context)
    _, files = completed(
        rendered.revision, rendered.files, service=DIRECT, address=address, port=port_of(DIRECT)
    )
    return {f"{EDGE_DIRECTORY}/{path}": text for path, text in files.items()}


def caddy(context: EdgeContext, *, verify: str = "") -> Proxy:
    """Return Caddy, built first when the cache has none. `verify` is the address of a service to ask about tokens."""
    return Proxy(
        name="caddy",
        port=CADDY_PORT,
        command=("/bench/caddy", "run", "--config", "/bench/Caddyfile", "--adapter", "caddyfile"),
        request=Request(host=context.server_names[0]),
        files={"/bench/Caddyfile": configured("Caddyfile", origin=ORIGIN, verify=verify)},
        programs={"/bench/caddy": peers.program(peers.CADDY)},
        environment={"GOMAXPROCS": str(worker_count(context)), "HOME": "/tmp"},  # noqa: S108  # the container's own
    )


def traefik(context: EdgeContext, *, verify: str = "") -> Proxy:
    """Return Traefik, built first when the cache has none. `verify` as in `caddy`."""
    host = context.server_names[0]
    return Proxy(
        name="traefik",
        port=TRAEFIK_PORT,
        command=("/bench/traefik", "--configfile=/bench/traefik.yml"),
        request=Request(host=host),
        files={
            "/bench/traefik.yml": configured("traefik.yml"),
            "/bench/traefik-routes.yml": configured(
                "traefik-routes.yml", host=host, origin=ORIGIN, verify=verify
            ),
        },
        programs={"/bench/traefik": peers.program(peers.TRAEFIK)},
        environment={"GOMAXPROCS": str(worker_count(context))},
    )


def aliases(context: EdgeContext) -> list[str]:
    """Return the names under which the proxies look for the upstream."""
    return list(dict.fromkeys(service.host or service.name for service in context.services))


def everyone(context: EdgeContext) -> list[Proxy]:
    """Return all that are compared, in the order of their turns."""
    return [make(context) for make in (bare, edge_quiet, bare_logging, edge, caddy, traefik)]
