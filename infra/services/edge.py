"""The edge: nginx, the only service that publishes a port."""

from infra import ports
from infra.edge_context import RUN_DIRECTORY, edge_context
from infra.networks import APP
from infra.releases import Release
from infra.render import EDGE_DIRECTORY, edge_files
from infra.service import File, HealthCheck, Port, ServiceSpec
from infra.services.limits import limits_of
from infra.settings import Settings

NGINX_UID = 101
NGINX_CONFIG = f"{EDGE_DIRECTORY}/nginx.conf"


def service(settings: Settings, release: Release) -> ServiceSpec:
    """Return nginx with its rendered configuration."""
    files = edge_files(edge_context(settings, release), overrides=settings.templates_dir)
    return ServiceSpec(
        name="nginx",
        image="nginx",
        networks=(APP,),
        after=("web",),
        user=str(NGINX_UID),
        # The log of the start itself goes to stderr too: the compiled-in file is not writable here.
        entrypoint=("nginx",),
        command=("-e", "stderr", "-c", NGINX_CONFIG, "-g", "daemon off;"),
        files=tuple(File(path=path, content=text) for path, text in files.items()),
        ports=(Port(internal=ports.EDGE_HTTP, external=settings.http_port, address=settings.bind_address),),
        tmpfs={RUN_DIRECTORY: f"size=16m,mode=0700,uid={NGINX_UID},gid={NGINX_UID}"},
        health=HealthCheck(
            command=(
                "curl",
                "-fsS",
                "-o",
                "/dev/null",
                "--max-time",
                "4",
                f"http://127.0.0.1:{ports.EDGE_STATUS}/healthz",
            )
        ),
        # Graceful for nginx: requests in flight are finished.
        stop_signal="SIGQUIT",
        stop_grace=30,
        limits=limits_of("nginx", settings),
        ready_timeout=60,
    )
