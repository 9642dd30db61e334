"""The OAuth gateway, without its configuration: that goes live in the running container."""

from collections.abc import Mapping

import pulumi

from infra.catalogue.releases import Release
from infra.catalogue.services import GATEWAY, GATEWAY_REDIS
from infra.services import data, gateway_secrets
from infra.services.spec import Detail, Details
from infra.settings.stack import Settings

WORKERS = 2


def secret(settings: Settings) -> pulumi.Output[str]:
    """Return the secret from which those of the gateway are derived, as a Pulumi secret."""
    return pulumi.Output.secret(settings.secrets.gateway_secret or "")


def redis(settings: Settings, _release: Release) -> Details:
    """Return the gateway's own Redis: plugins and workers write to Dify's, which the gateway must not trust."""
    return data.redis(settings, secret(settings).apply(gateway_secrets.redis_password))


def gateway(_settings: Settings, _release: Release) -> Details:
    """Return the gateway."""
    return Details(environment={"DIFY_GATEWAY_WORKERS": str(WORKERS)})


DETAILS: Mapping[str, Detail] = {GATEWAY: gateway, GATEWAY_REDIS: redis}
