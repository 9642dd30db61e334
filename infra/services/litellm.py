"""LiteLLM's proxy as the LLM proxy's engine, without its configuration: that comes to the running container."""

from collections.abc import Mapping

from infra.catalogue import ports
from infra.catalogue.container_paths import LITELLM_DIRECTORY
from infra.catalogue.releases import Release
from infra.catalogue.services import LITELLM
from infra.services.spec import Detail, Details
from infra.settings.stack import Settings

CURRENT = f"{LITELLM_DIRECTORY}/current"
CONFIG, ROOTS = "config.yaml", "roots.pem"
# Of the container alone: which release was started, and the roots that it trusts.
REVISION_FILE, TRUSTED = "/tmp/revision", "/tmp/roots.pem"  # noqa: S108  # the container's own
# The configuration comes after the container and outlives it on its volume. The link is read once: what runs is what
# the revision names, also while a newer one is being written. LiteLLM trusts one file of roots.
_RUN = f"""
trap 'exit 0' TERM INT
until [ -f {CURRENT}/{CONFIG} ]; do
  sleep 0.2
done
release=$(readlink {CURRENT})
cat /etc/ssl/certs/ca-certificates.crt {LITELLM_DIRECTORY}/$release/{ROOTS} > {TRUSTED} || exit 1
echo "$release" > {REVISION_FILE}
exec litellm --config {LITELLM_DIRECTORY}/$release/{CONFIG} --host 0.0.0.0 --port {ports.LITELLM} --telemetry False
"""


def litellm(_settings: Settings, _release: Release) -> Details:
    """Return LiteLLM's proxy. It publishes no port: nginx reaches it, and it reaches its upstreams."""
    return Details(
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
    )


DETAILS: Mapping[str, Detail] = {LITELLM: litellm}
