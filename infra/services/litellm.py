"""LiteLLM's proxy as the LLM proxy's engine, without its configuration: that comes to the running container."""

from infra.catalogue import ports, releases
from infra.services.limits import limits_of
from infra.services.networks import LITELLM, LITELLM_UPSTREAMS
from infra.services.spec import HealthCheck, Mount, ServiceSpec
from infra.settings.stack import Settings

NAME = releases.LITELLM
UID = 1003
DIRECTORY = "/etc/dify-kit/litellm"
VOLUME = "litellm"
CURRENT = f"{DIRECTORY}/current"
CONFIG, ROOTS = "config.yaml", "roots.pem"
# Of the container alone: which release was started, and the roots that it trusts.
REVISION_FILE, TRUSTED = "/tmp/revision", "/tmp/roots.pem"  # noqa: S108  # the container's own
STOP_SECONDS = 30
# The configuration comes after the container and outlives it on its volume. The link is read once: what runs is what
# the revision names, also while a newer one is being written. LiteLLM trusts one file of roots.
_RUN = f"""
trap 'exit 0' TERM INT
until [ -f {CURRENT}/{CONFIG} ]; do
  sleep 0.2
done
release=$(readlink {CURRENT})
cat /etc/ssl/certs/ca-certificates.crt {DIRECTORY}/$release/{ROOTS} > {TRUSTED} || exit 1
echo "$release" > {REVISION_FILE}
exec litellm --config {DIRECTORY}/$release/{CONFIG} --host 0.0.0.0 --port {ports.LITELLM} --telemetry False
"""
# The official image has no curl.
ALIVE = (
    "import urllib.request as u; "
    f"u.urlopen('http://127.0.0.1:{ports.LITELLM}/health/liveliness', timeout=4).read()"
)


def wanted(settings: Settings) -> bool:
    """Tell whether a stack runs LiteLLM."""
    return settings.llm is not None and settings.llm.litellm is not None


def volumes() -> tuple[str, ...]:
    """Return the logical names of LiteLLM's volumes: its configuration, which the next `up` makes anew."""
    return (VOLUME,)


def service(settings: Settings) -> ServiceSpec:
    """Return LiteLLM's proxy. It publishes nothing; nginx reaches it, and it its upstreams."""
    return ServiceSpec(
        name=NAME,
        image=NAME,
        networks=(LITELLM, LITELLM_UPSTREAMS),
        user=str(UID),
        entrypoint=("sh", "-c"),
        command=(_RUN,),
        environment={
            "HOME": "/tmp",  # noqa: S108  # the container's own
            # Reads no .env file.
            "LITELLM_MODE": "PRODUCTION",
            # Tracebacks of failed requests tell what upstreams said, a key among it in the worst case.
            "LITELLM_LOG": "CRITICAL",
            # Neither asks a public host for prices, nor serves pages.
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "DISABLE_ADMIN_UI": "True",
            "NO_DOCS": "True",
            "NO_REDOC": "True",
            "SSL_CERT_FILE": TRUSTED,
        },
        # Written through the engine, as root's: LiteLLM's own user cannot change what it is told.
        mounts=(Mount(volume=VOLUME, path=DIRECTORY),),
        tmpfs={"/tmp": f"size=64m,mode=0700,uid={UID},gid={UID}"},  # noqa: S108
        health=HealthCheck(command=("python3", "-c", ALIVE), start_period=120),
        read_only=True,
        # It finishes the requests in flight.
        stop_grace=STOP_SECONDS,
        limits=limits_of(NAME, settings),
        ready_timeout=240,
    )
