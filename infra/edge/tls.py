"""TLS for the nginx templates: the files of certificate and key, redirects, and unknown host names."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import urlsplit

import pulumi

from infra.catalogue import ports
from infra.edge.paths import CERTIFICATE_FILE, CHALLENGES, KEY_FILE, PUBLISHED
from infra.settings.certificates import address_of
from infra.settings.origins import DEFAULT_PORTS
from infra.settings.stack import Settings
from infra.settings.tls import Tls

# Mozilla's intermediate profile, without its DHE ciphers: they need parameters, and no client needs them.
CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
)
# What the kubelet writes of a Secret of type kubernetes.io/tls. A change of the Secret is another target of the link.
SECRET_LINK, SECRET_CERTIFICATE, SECRET_KEY = "..data", "tls.crt", "tls.key"  # names of files
# The Service of the pods by which cert-manager answers the HTTP challenges of a CA.
SOLVERS = "certificate-challenges"
CURVES = ("X25519", "prime256v1", "secp384r1")


@dataclass(frozen=True, kw_only=True)
class EdgeTls:
    """TLS as the templates read it, as `edge.tls`.

    `digest` is that of the chain, so a renewed certificate is a new configuration; empty where it changes
    without the kit (acme and cert-manager). `public_port` is the port in redirects, empty for 443; `plain_port` is the
    host's port for HTTP. `challenges` is the directory of ACME's challenges, empty without acme; `solvers` is where
    cert-manager answers them, empty without it.
    """

    certificate: str
    key: str
    digest: str
    redirect: bool
    hsts_seconds: int
    public_port: str
    plain_port: int
    refuse_unknown_names: bool
    challenges: str
    solvers: str
    port: int = ports.EDGE_HTTPS
    ciphers: tuple[str, ...] = CIPHERS
    curves: tuple[str, ...] = CURVES


def edge_tls(settings: Settings, *, suffix: str = "") -> EdgeTls | None:
    """Return what the edge needs for TLS, None without it. `suffix` follows the names of services."""
    tls = settings.tls
    if not tls.on:
        return None
    certificate, key = files_of(tls)
    port = urlsplit(settings.public_url).port
    return EdgeTls(
        certificate=certificate,
        key=key,
        digest=hashlib.sha256(tls.certificate.chain.encode()).hexdigest() if tls.certificate else "",
        redirect=tls.redirect,
        hsts_seconds=tls.hsts_seconds,
        public_port="" if port in {None, DEFAULT_PORTS["https"]} else f":{port}",
        plain_port=settings.http_port,
        # A client that connects to an IP address sends no server name: it looks the same as one with no valid name.
        refuse_unknown_names=not any(address_of(name) for name in settings.server_names),
        challenges=CHALLENGES if tls.acme else "",
        solvers=f"{SOLVERS}{suffix}:{ports.ACME_SOLVER}" if tls.issuer else "",
    )


def files_of(tls: Tls) -> tuple[str, str]:
    """Return the paths of certificate and key, relative to nginx.conf where they are a part of the configuration."""
    if tls.acme:
        return f"{PUBLISHED}/current/fullchain.pem", f"{PUBLISHED}/current/key.pem"
    if tls.issuer:
        return f"{PUBLISHED}/{SECRET_CERTIFICATE}", f"{PUBLISHED}/{SECRET_KEY}"
    return CERTIFICATE_FILE, KEY_FILE


def link_of(tls: Tls) -> str:
    """Return the link whose target changes with the certificate; empty where it is a part of the configuration."""
    if tls.acme:
        return f"{PUBLISHED}/current"
    return f"{PUBLISHED}/{SECRET_LINK}" if tls.issuer else ""


def public_files(settings: Settings) -> Mapping[str, str]:
    """Return the public files of TLS, by their path relative to nginx.conf."""
    certificate = settings.tls.certificate
    return MappingProxyType({CERTIFICATE_FILE: certificate.chain} if certificate else {})


def private_files(settings: Settings) -> Mapping[str, pulumi.Output[str]]:
    """Return the private files of TLS, which only nginx may read, by their path relative to nginx.conf."""
    key = settings.tls.key
    return MappingProxyType({} if key is None else {KEY_FILE: key})
