"""The edge: nginx, the only service that publishes a port."""

from infra.catalogue import ports
from infra.edge.paths import (
    AFTER_RELOAD_SECONDS,
    BODIES_DIRECTORY,
    DRAIN_MARK,
    DRAIN_SECONDS,
    EDGE_DIRECTORY,
    NGINX_CONFIG,
    PUBLISHED,
    RUN_DIRECTORY,
    RUN_MEGABYTES,
    USAGE_DIRECTORY,
)
from infra.services import certificates, gateway, litellm
from infra.services.health import answers_http
from infra.services.limits import limits_of
from infra.services.networks import APP, LITELLM, OAUTH
from infra.services.spec import Mount, Port, ServiceSpec
from infra.settings.network import addresses_of
from infra.settings.stack import Settings

NGINX_UID = certificates.UID
# How soon a renewed certificate is noticed.
WATCH_SECONDS = 5
# The configuration comes after the container (infra.resources.live_config) and outlives it on its volume. One
# that nginx does not accept, or none yet, is waited out: the container stays there to be given a better one.
# A body whose worker was killed would lie in its file for ever.
# The log of the start itself goes to stderr: the compiled-in file is not writable here.
_WAIT = f"""
trap 'exit 0' QUIT TERM INT
rm -rf {BODIES_DIRECTORY}
until [ -f {NGINX_CONFIG} ] && nginx -e stderr -t -q -c {NGINX_CONFIG}; do
  sleep 0.2
done
"""
# certbot publishes certificates by a link (infra.container_scripts.certificates): another target is another
# certificate. It is taken as a configuration is: judged, idle connections drained, reloaded.
_WATCH = f"""
certificate() {{ readlink {PUBLISHED}/current; }}
known=$(certificate)
while sleep {WATCH_SECONDS}; do
  now=$(certificate)
  if [ "$now" != "$known" ] && nginx -e stderr -t -q -c {NGINX_CONFIG}; then
    touch {DRAIN_MARK}; sleep {DRAIN_SECONDS}
    nginx -e stderr -s reload -c {NGINX_CONFIG} && known=$now
    sleep {AFTER_RELOAD_SECONDS}; rm -f {DRAIN_MARK}
  fi
done &
"""
_RUN = f"""
exec nginx -e stderr -c {NGINX_CONFIG} -g 'daemon off;'
"""


def volumes() -> tuple[str, ...]:
    """Return the logical names of the edge's volumes: its configuration, and bodies on their way through.

    Both are made anew by the next `up`: they go with the stack.
    """
    return ("edge", "edge_temp")


def lasting_volumes(settings: Settings) -> tuple[str, ...]:
    """Return the volumes that outlive the stack: what callers of the LLM proxy used, for their budgets."""
    return ("llm_usage",) if settings.llm else ()


def service(settings: Settings) -> ServiceSpec:
    """Return nginx, without its configuration."""
    return ServiceSpec(
        name="nginx",
        image="nginx",
        networks=(
            APP,
            *((OAUTH,) if settings.gateway else ()),
            *((LITELLM,) if litellm.wanted(settings) else ()),
        ),
        after=(
            "web",
            *((gateway.NAME,) if settings.gateway else ()),
            *((litellm.NAME,) if litellm.wanted(settings) else ()),
            *(spec.name for spec in certificates.preparing(settings)),
        ),
        user=str(NGINX_UID),
        entrypoint=("sh", "-c"),
        command=(_WAIT + (_WATCH if settings.tls.acme else "") + _RUN,),
        ports=_ports(settings),
        mounts=(
            Mount(volume="edge", path=EDGE_DIRECTORY),
            Mount(volume="edge_temp", path="/tmp"),  # noqa: S108  # the container's own
            *([Mount(volume="llm_usage", path=USAGE_DIRECTORY)] if settings.llm else []),
            *certificates.nginx_mounts(settings),
        ),
        tmpfs={RUN_DIRECTORY: f"size={RUN_MEGABYTES}m,mode=0700,uid={NGINX_UID},gid={NGINX_UID}"},
        health=answers_http(ports.EDGE_STATUS, "/healthz"),
        read_only=True,
        # Graceful for nginx: requests in flight are finished.
        stop_signal="SIGQUIT",
        stop_grace=30,
        limits=limits_of("nginx", settings),
        ready_timeout=60,
    )


def _ports(settings: Settings) -> tuple[Port, ...]:
    wanted = [(ports.EDGE_HTTP, settings.http_port)]
    if settings.tls.on:
        wanted.append((ports.EDGE_HTTPS, settings.https_port))
    return tuple(
        Port(internal=internal, external=external, address=address)
        for internal, external in wanted
        for address in addresses_of(settings.bind_address)
    )
