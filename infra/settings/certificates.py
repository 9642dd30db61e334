"""Checks of certificates before anything is created: key, chain, dates and names have to match.

No message contains a key, or a library's text about it.
"""

import ipaddress
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

MIN_RSA_BITS = 2048
CURVES = ("secp256r1", "secp384r1")
CERTIFICATE, KEY = "tlsCertificate", "tlsKey"


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A server's certificate: its chain as PEM, the leaf's SHA-256 in hex, and when it ends."""

    chain: str
    fingerprint: str
    not_after: datetime


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong, with which of the two settings, and what to do."""

    setting: str
    why: str
    fix: str


def describe(chain: str) -> Certificate:
    """Return what there is to know about a chain in PEM. Raises ValueError when it holds no certificate."""
    leaf = x509.load_pem_x509_certificates(chain.encode())[0]
    return Certificate(
        chain=chain,
        fingerprint=leaf.fingerprint(hashes.SHA256()).hex(),
        not_after=leaf.not_valid_after_utc,
    )


def problems(certificate: str, key: str, hosts: Sequence[str], now: datetime) -> list[Problem]:
    """Return what keeps a certificate and its key (PEM) from serving `hosts`, an IPv6 address in brackets."""
    try:
        chain = x509.load_pem_x509_certificates(certificate.encode())
    except ValueError:
        return [
            Problem(
                setting=CERTIFICATE,
                why="holds no certificate in PEM",
                fix="set the PEM text of the whole chain",
            )
        ]
    return [
        *_key_problems(chain, key),
        *_chain_problems(chain),
        *_dates(chain, now),
        *_names(chain[0], hosts),
    ]


def _key_problems(chain: list[x509.Certificate], pem: str) -> Iterator[Problem]:
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except TypeError:
        yield Problem(
            setting=KEY,
            why="is encrypted with a passphrase, which nginx cannot enter",
            fix="remove it (`openssl pkey -in key.pem`): Pulumi's configuration encrypts the key itself",
        )
        return
    except (ValueError, UnsupportedAlgorithm):
        yield Problem(
            setting=KEY,
            why="holds no private key in PEM",
            fix="set the PEM text of the key",
        )
        return
    weak = not (
        (isinstance(key, rsa.RSAPrivateKey) and key.key_size >= MIN_RSA_BITS)
        or (isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in CURVES)
    )
    if weak:
        yield Problem(
            setting=KEY,
            why="is of a kind or size that browsers do not take",
            fix=f"use RSA with {MIN_RSA_BITS} bits or more, or the curve P-256 or P-384",
        )
    public = key.public_key()
    fitting = [number for number, one in enumerate(chain) if one.public_key() == public]
    if not fitting:
        yield Problem(
            setting=KEY,
            why="does not belong to the certificate",
            fix="set tlsCertificate and tlsKey from the same pair",
        )
    elif fitting[0] != 0:
        yield Problem(
            setting=CERTIFICATE,
            why="does not begin with the server's own certificate",
            fix="put it first, then the one that issued it, and so on",
        )


def _chain_problems(chain: list[x509.Certificate]) -> Iterator[Problem]:
    for number, (child, parent) in enumerate(itertools.pairwise(chain), start=1):
        try:
            child.verify_directly_issued_by(parent)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            yield Problem(
                setting=CERTIFICATE,
                why=f"certificate {number} of the chain was not issued by the one after it",
                fix="put each certificate before the one that issued it, and leave others out",
            )
            return


def _dates(chain: list[x509.Certificate], now: datetime) -> Iterator[Problem]:
    for number, one in enumerate(chain, start=1):
        which = "the server's certificate" if number == 1 else f"certificate {number} of the chain"
        if one.not_valid_after_utc <= now:
            yield Problem(
                setting=CERTIFICATE,
                why=f"{which} expired on {one.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
                fix="set a renewed one",
            )
        elif one.not_valid_before_utc > now:
            yield Problem(
                setting=CERTIFICATE,
                why=f"{which} is valid only from {one.not_valid_before_utc:%Y-%m-%d %H:%M} UTC",
                fix="check this machine's clock, or set the certificate that is valid now",
            )


def _names(leaf: x509.Certificate, hosts: Sequence[str]) -> Iterator[Problem]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns = names.get_values_for_type(x509.DNSName)
        addresses = {str(one) for one in names.get_values_for_type(x509.IPAddress)}
    except x509.ExtensionNotFound:
        dns, addresses = [], set()
    for host in hosts:
        if not _covered(host, dns, addresses):
            named = ", ".join([*dns, *sorted(addresses)]) or "nothing (browsers ignore a common name)"
            yield Problem(
                setting=CERTIFICATE,
                why=f"does not cover {host}: it names {named}",
                fix="use a certificate with this name, or take it out of publicUrl, urls and serverNames",
            )


def _covered(host: str, dns: Sequence[str], addresses: set[str]) -> bool:
    if address := address_of(host):
        return str(address) in addresses
    # A wildcard matches exactly one label.
    parent = host.partition(".")[2]
    return any(one.lower() in {host, f"*.{parent}"} for one in dns)


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return a host as an IP address, None when it is a name."""
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def pem_of(certificate: x509.Certificate) -> str:
    """Return a certificate in PEM, without comments around it."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def now_utc() -> datetime:
    """Return the time that certificates are compared with."""
    return datetime.now(UTC)
