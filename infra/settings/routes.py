"""`dify:kubernetes.ingress` and `dify:kubernetes.gateway`: how a controller of the cluster serves the edge."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from infra.settings import certificates
from infra.settings.origins import is_loopback
from infra.settings.reader import Section
from infra.settings.urls import Urls

# cert-manager makes the Secret of an Ingress that has one of these.
ISSUERS = ("cert-manager.io/cluster-issuer", "cert-manager.io/issuer")
_ANNOTATION = re.compile(
    r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
)


@dataclass(frozen=True, kw_only=True)
class Ingress:
    """An Ingress of a class. ``tls_secret`` is empty where the controller has certificates of its own."""

    class_name: str
    annotations: Mapping[str, str]
    tls_secret: str

    @property
    def issued(self) -> bool:
        """Whether cert-manager makes the Secret."""
        return any(name in self.annotations for name in ISSUERS)


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """A Gateway that exists, and the name of its listener; empty for every listener."""

    name: str
    namespace: str
    section: str


@dataclass(frozen=True, kw_only=True)
class Routes:
    """The routes of a stack, for ``hosts``."""

    hosts: tuple[str, ...] = ()
    ingress: Ingress | None = None
    gateway: Gateway | None = None


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """The settings that a route must fit. ``hosts`` are those of `publicUrl` and `urls`."""

    public_url: str
    hosts: tuple[str, ...]
    trusted_proxies: tuple[str, ...]
    tls_mode: str
    proxy_protocol: bool = False

    @classmethod
    def of(
        cls, public_url: str, urls: Urls, trusted: tuple[str, ...], tls_mode: str, *, proxied: bool = False
    ) -> "Surroundings":
        """Return them for the addresses of a stack."""
        hosts = (urlsplit(one).hostname or "" for one in (public_url, *urls.every))
        return cls(
            public_url=public_url,
            hosts=tuple(dict.fromkeys(filter(None, hosts))),
            trusted_proxies=trusted,
            tls_mode=tls_mode,
            proxy_protocol=proxied,
        )


def read_routes(section: Section, around: Surroundings, name: Callable[[Section, str], str]) -> Routes:
    """Read both parts of `dify:kubernetes`. `name` reads the name of an object."""
    ingress = _ingress(section.part("ingress"), name)
    gateway = _gateway(section.part("gateway"), name)
    if ingress:
        _check(section, "ingress.className", ingress.class_name, around)
    if gateway:
        _check(section, "gateway.name", gateway.name, around)
    return Routes(hosts=around.hosts, ingress=ingress, gateway=gateway)


def read_annotations(section: Section, name: str, example: str) -> dict[str, str]:
    """Read annotations of an object; `example` is the name of one."""
    annotations = {}
    for key, value in section.mapping(name).items():
        if not _ANNOTATION.fullmatch(key):
            section.problems.add(
                f"{section.key(name)}.{key}",
                value,
                "is not the name of an annotation",
                f"use prefix/name, such as {example}",
            )
        annotations[key] = value if isinstance(value, str) else str(value).lower()
    return annotations


def _ingress(section: Section, name: Callable[[Section, str], str]) -> Ingress | None:
    class_name, secret = name(section, "className"), name(section, "tlsSecret")
    annotations = read_annotations(section, "annotations", ISSUERS[0])
    if class_name:
        return Ingress(class_name=class_name, annotations=annotations, tls_secret=secret)
    _unused(section, "className", "annotations", "tlsSecret")
    return None


def _gateway(section: Section, name: Callable[[Section, str], str]) -> Gateway | None:
    found = Gateway(
        name=name(section, "name"), namespace=name(section, "namespace"), section=name(section, "section")
    )
    if found.name:
        return found
    _unused(section, "name", "namespace", "section")
    return None


def _unused(section: Section, needed: str, *keys: str) -> None:
    for key in keys:
        if section.raw(key):
            section.problems.add(
                section.key(key),
                section.raw(key),
                f"has no effect without {section.key(needed)}",
                f"set {section.key(needed)}, or remove it",
            )
            return


def _check(section: Section, key: str, value: str, around: Surroundings) -> None:
    """Report the settings with which a controller in front of the edge does not work."""
    add, part = section.problems.add, section.key(key)
    if not around.trusted_proxies:
        add(
            "trustedProxies",
            [],
            f"is empty, and with {part} every client has the address of the controller: all would share the limits of "
            "one address",
            "name the addresses of the controller's pods, by `kubectl get pods --all-namespaces --output wide`",
        )
    if around.tls_mode != "off":
        add(
            part,
            value,
            f"the controller ends TLS, and dify:tls.mode is {around.tls_mode}",
            "set tls.mode to off, or send clients to Service edge without a route",
        )
    if around.proxy_protocol:
        add(
            "proxyProtocol",
            "true",
            f"the controller of {part} sends HTTP with X-Forwarded-For",
            "set it to false: trustedProxies names the controller",
        )
    unfit = [one for one in around.hosts if is_loopback(one) or certificates.address_of(one)]
    if unfit or not around.hosts:
        add(
            "publicUrl",
            around.public_url,
            f"{part} routes by host name, and {', '.join(unfit) or 'this'} is none",
            "set it to the address under which clients reach the controller, such as https://dify.example.com",
        )
