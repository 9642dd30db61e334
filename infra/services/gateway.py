"""The OAuth gateway, without its configuration: that goes live in the running container."""

import pulumi

from infra.catalogue import ports
from infra.catalogue.releases import GATEWAY, GATEWAY_REDIS
from infra.services import data
from infra.services.health import answers_http
from infra.services.limits import limits_of
from infra.services.networks import ISSUERS, OAUTH, OAUTH_DATA, asks_issuers
from infra.services.spec import Mount, ServiceSpec
from infra.settings.stack import Settings

NAME = GATEWAY
UID = 1002
DIRECTORY = "/etc/dify-gateway"
VOLUME = "gateway"
WORKERS = 2


def volumes() -> tuple[str, ...]:
    """Return the logical names of the gateway's volumes: its configuration, which the next `up` makes anew."""
    return (VOLUME,)


def lasting_volumes() -> tuple[str, ...]:
    """Return the volumes that outlive the stack: which tokens were revoked, and who is signed in."""
    return (GATEWAY_REDIS,)


def memory(settings: Settings, password: pulumi.Output[str]) -> ServiceSpec:
    """Return the gateway's own Redis. Dify's is full of what plugins and workers write: they trust it, and it them."""
    return data.redis(GATEWAY_REDIS, password, settings, networks=(OAUTH_DATA,), volume=GATEWAY_REDIS)


def service(settings: Settings) -> ServiceSpec:
    """Return the gateway. It has a way out only to external issuers of tokens and to the gate's provider."""
    return ServiceSpec(
        name=NAME,
        image=NAME,
        networks=(OAUTH, OAUTH_DATA, ISSUERS) if asks_issuers(settings) else (OAUTH, OAUTH_DATA),
        after=(GATEWAY_REDIS,),
        user=str(UID),
        environment={"DIFY_GATEWAY_WORKERS": str(WORKERS)},
        # Written through the engine, as root's: the gateway's own user cannot change what it is told.
        mounts=(Mount(volume=VOLUME, path=DIRECTORY),),
        health=answers_http(ports.GATEWAY_INTERNAL, "/healthz"),
        # A service that is stopped has no name. Each thread that asks for it would wait ten seconds for that answer,
        # and soon all of them.
        dns_options=("timeout:1", "attempts:1"),
        read_only=True,
        stop_grace=15,
        limits=limits_of(NAME, settings),
        ready_timeout=60,
    )
