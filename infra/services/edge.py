"""The edge: nginx, the only service that publishes a port, and the owner of the LLM proxy's counts."""

from collections.abc import Mapping, Sequence

from infra.catalogue import ports
from infra.catalogue.releases import Release
from infra.catalogue.services import LLM_EDGE, NGINX
from infra.edge.paths import (
    AFTER_RELOAD_SECONDS,
    BODIES_DIRECTORY,
    DRAIN,
    DRAIN_MARK,
    NGINX_CONFIG,
)
from infra.edge.ring import replica_names
from infra.edge.tls import link_of
from infra.services.spec import Detail, Details, Port
from infra.settings.network import addresses_of
from infra.settings.stack import Settings

# How soon a renewed certificate is noticed.
WATCH_SECONDS = 5
# The configuration comes after the container (infra.resources.live_config) and outlives it on its volume. One
# that nginx does not accept, or none yet, is waited out: the container stays there to be given a better one.
# The file of a body whose worker was killed would stay for ever.
# The log of the start itself goes to stderr: the compiled-in file is not writable here.
_WAIT = f"""
trap 'exit 0' QUIT TERM INT
rm -rf {BODIES_DIRECTORY}
until [ -f {NGINX_CONFIG} ] && nginx -e stderr -t -q -c {NGINX_CONFIG}; do
  sleep 0.2
done
"""
# certbot publishes certificates by a link (infra.container_scripts.certificates), and so does the kubelet the Secret of
# cert-manager: another target is another certificate. It goes live as a configuration does: checked, idle connections
# drained, reloaded.
_WATCH = f"""
certificate() {{{{ readlink {{link}}; }}}}
known=$(certificate)
while sleep {WATCH_SECONDS}; do
  now=$(certificate)
  if [ "$now" != "$known" ] && nginx -e stderr -t -q -c {NGINX_CONFIG}; then
    {DRAIN}
    nginx -e stderr -s reload -c {NGINX_CONFIG} && known=$now
    sleep {AFTER_RELOAD_SECONDS}; rm -f {DRAIN_MARK}
  fi
done &
"""
# On Kubernetes the configuration is there before the container, and one that nginx does not accept ends it: the pods
# with the one before stay.
_RUN = f"""
exec nginx -e stderr -c {NGINX_CONFIG} -g 'daemon off;'
"""
# nginx reads the names of the other replicas, and that of the owner of the LLM proxy's counts, once, at its start. Each
# has a Service of its own with a fixed address, which may be new to the cluster's DNS. The pod does not get ready while
# one is missing.
NAMES_SECONDS = 60
_NAMES = """
deadline=$(($(date +%s) + {seconds}))
for name in {names}; do
  until getent hosts "$name" > /dev/null; do
    [ "$reported" = "$name" ] || echo "waiting for the name $name in DNS" >&2
    reported=$name
    if [ "$(date +%s)" -ge "$deadline" ]; then
      echo "no address for the name $name in DNS after {seconds} s" >&2
      exit 1
    fi
    sleep 0.2
  done
done
"""


def watch_script(link: str) -> str:
    """Return what reloads nginx when the target of a link to its certificate changes."""
    return _WATCH.format(link=link)


def run_script(names: Sequence[str], *, link: str = "", seconds: int = NAMES_SECONDS) -> str:
    """Return what starts nginx once the host names that it connects to are known; `seconds` is how long it waits.

    `link` is that of a certificate that changes while nginx runs; empty for none.
    """
    known = _NAMES.format(names=" ".join(names), seconds=seconds) if names else ""
    return known + (watch_script(link) if link else "") + _RUN


def nginx(settings: Settings, _release: Release) -> Details:
    """Return nginx, without its configuration."""
    before = "" if settings.kubernetes else _WAIT
    replicas = settings.kubernetes.replicas[NGINX] if settings.kubernetes else 1
    others = replica_names(replicas) if replicas > 1 else ()
    owner = (LLM_EDGE,) if settings.kubernetes and settings.llm else ()
    run = run_script((*others, *owner), link=link_of(settings.tls))
    return Details(command=(before + run,), ports=_ports(settings))


def llm_edge(_settings: Settings, _release: Release) -> Details:
    """Return the owner of the LLM proxy's counts, without its configuration."""
    return Details(command=(run_script(()),))


def _ports(settings: Settings) -> tuple[Port, ...]:
    plain, secured = (
        (ports.EDGE_PROXIED_HTTP, ports.EDGE_PROXIED_HTTPS)
        if settings.proxy_protocol
        else (ports.EDGE_HTTP, ports.EDGE_HTTPS)
    )
    wanted = [(plain, settings.http_port)]
    if settings.tls.on:
        wanted.append((secured, settings.https_port))
    return tuple(
        Port(internal=internal, external=external, address=address)
        for internal, external in wanted
        for address in addresses_of(settings.bind_address)
    )


DETAILS: Mapping[str, Detail] = {NGINX: nginx, LLM_EDGE: llm_edge}
