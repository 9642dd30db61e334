"""The edge: nginx, the only service that publishes a port."""

from infra import ports, render
from infra.networks import APP
from infra.releases import Release
from infra.service import File, HealthCheck, Port, ServiceSpec
from infra.services.limits import limits_of
from infra.settings import Settings

NGINX_UID = 101
NGINX_CONFIG = "/etc/dify-kit/nginx/nginx.conf"


def service(settings: Settings, release: Release) -> ServiceSpec:
    """Return nginx with its rendered configuration."""
    files = render.edge_files(render.edge_context(settings, release), overrides=settings.templates_dir)
    return ServiceSpec(
        name="nginx",
        image="nginx",
        networks=(APP,),
        after=("web",),
        user=str(NGINX_UID),
        entrypoint=("nginx",),
        command=("-c", NGINX_CONFIG, "-g", "daemon off;"),
        files=tuple(File(path=path, content=text, owner=NGINX_UID) for path, text in files.items()),
        ports=(Port(internal=ports.EDGE_HTTP, external=settings.http_port, address=settings.bind_address),),
        tmpfs={"/run/edge": f"size=64m,mode=0700,uid={NGINX_UID},gid={NGINX_UID}"},
        read_only=True,
        health=HealthCheck(
            command=(
                "curl",
                "-fsS",
                "-o",
                "/dev/null",
                "--max-time",
                "4",
                f"http://127.0.0.1:{ports.EDGE_HTTP}/healthz",
            )
        ),
        # Graceful for nginx: requests in flight are finished.
        stop_signal="SIGQUIT",
        stop_grace=30,
        limits=limits_of("nginx", settings),
        ready_timeout=60,
    )
