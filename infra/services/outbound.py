"""The proxy and the CA of `dify:outbound` as the variables and the file that programs read."""

import pulumi

from infra.catalogue.container_paths import GATEWAY_DIRECTORY, ROOTS_FILE
from infra.catalogue.outbound import Way, way_of
from infra.catalogue.services import GATEWAY, PLUGIN_DAEMON
from infra.services.spec import File
from infra.settings.outbound import Proxy
from infra.settings.roots import public_roots, roots
from infra.settings.stack import Settings

GATEWAY_ROOTS = "roots.pem"
# OpenSSL, Python's ssl and httpx, Go and uv; requests; botocore, which has one of its own.
ROOTS_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")


def url(proxy: Proxy) -> pulumi.Input[str]:
    """Return the URL of the proxy; with a user name and a password in it, a secret."""
    if proxy.login is None:
        return f"http://{proxy.address}"
    return pulumi.Output.concat("http://", proxy.login.userinfo, f"@{proxy.address}")


def proxy_variables(proxy: Proxy) -> dict[str, pulumi.Input[str]]:
    """Return the variables by which most programs find a proxy, and the hosts that they reach without it.

    In capital letters alone: gRPC reads the others, and would send its calls of the stack's own services to the proxy.
    """
    where = url(proxy)
    return {"HTTP_PROXY": where, "HTTPS_PROXY": where, "NO_PROXY": ",".join(proxy.exceptions)}


def build_arguments(settings: Settings) -> dict[str, pulumi.Input[str]]:
    """Return the proxy as build arguments that Docker knows by name: it stores none of them in the image.

    In both spellings: apt reads `http_proxy` alone.
    """
    if settings.outbound is None or settings.outbound.proxy is None:
        return {}
    found = proxy_variables(settings.outbound.proxy)
    return found | {name.lower(): value for name, value in found.items()}


def variables(service: str, settings: Settings) -> dict[str, pulumi.Input[str]]:
    """Return the variables that a service gets of `dify:outbound`."""
    outbound, way = settings.outbound, way_of(service)
    found: dict[str, pulumi.Input[str]] = {}
    if outbound and outbound.proxy and Way.VARIABLES in way:
        found |= proxy_variables(outbound.proxy)
    if _authorities(service, settings):
        found |= dict.fromkeys(ROOTS_VARIABLES, _path(service))
    return found


def files(service: str, settings: Settings) -> tuple[File, ...]:
    """Return the file with what a service trusts, where it gets one before it starts."""
    added = _authorities(service, settings)
    if not added or service == GATEWAY:
        return ()
    return (File(path=ROOTS_FILE, content=public_roots() + added),)


def gateway_files(settings: Settings) -> dict[str, str]:
    """Return what the gateway trusts, by its name in a revision of its configuration; empty without a CA.

    Its root file system is read-only, so no file can be placed there. It reads this one for each request.
    """
    outbound = settings.outbound
    return {GATEWAY_ROOTS: roots(outbound)} if outbound and outbound.ca else {}


def _authorities(service: str, settings: Settings) -> str:
    """Return the authorities that a service trusts in addition to the public ones, in PEM."""
    outbound = settings.outbound.ca if settings.outbound and Way.ROOTS in way_of(service) else ""
    # Versions of the plugin daemon do not read REDIS_SSL_CA_CERTS, and take what Go's TLS trusts.
    redis = settings.redis.ca if settings.redis and settings.redis.tls and service == PLUGIN_DAEMON else ""
    return outbound + redis


def _path(service: str) -> str:
    return f"{GATEWAY_DIRECTORY}/current/{GATEWAY_ROOTS}" if service == GATEWAY else ROOTS_FILE
