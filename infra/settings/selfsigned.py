"""Self-signed certificates for trials: a CA and a server certificate, computed from one secret.

The same seed, names and day give the same bytes, so nothing has to be stored or kept in step: a second `pulumi
up` changes nothing, a stack that is destroyed and deployed again has the CA that browsers trust already, and the
certificate renews itself with the first `up` of a new period, months before the old one ends.
"""

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from infra.settings.certificates import Certificate, address_of, describe

# Mozilla's profile has a year as the longest life.
VALID = timedelta(days=365)
PERIOD = timedelta(days=90)
# For clients whose clock is behind.
EARLY = timedelta(days=1)
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
CA_VALID = timedelta(days=20 * 365)
CURVE = ec.SECP256R1()
# The order of the curve's group: private keys are from 1 to one less.
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
# Some more bytes than a key has, so that every key is as likely as any other.
DERIVED_BYTES = 48


@dataclass(frozen=True, kw_only=True)
class SelfSigned:
    """A server certificate with its key in PEM (a secret), and the CA to trust, in PEM."""

    certificate: Certificate
    key: str
    ca: str


def issue(seed: str, stack: str, hosts: Sequence[str], now: datetime) -> SelfSigned:
    """Return the certificate for `hosts` that is current at `now`; `seed` is a secret of the stack."""
    period = (now - EPOCH) // PERIOD
    start = EPOCH + period * PERIOD
    names = [_general_name(host) for host in hosts]
    ca_key = _derived_key(seed, "ca")
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"dify-kit {stack} (self-signed)")])
    ca = _built(
        subject=ca_name,
        issuer=ca_name,
        key=ca_key,
        signer=ca_key,
        start=EPOCH - EARLY,
        end=EPOCH + CA_VALID,
        extensions=[
            (x509.BasicConstraints(ca=True, path_length=0), True),
            (_usage(ca=True), True),
            # A browser that trusts this CA trusts it for this stack's names alone.
            (_constraints(names), True),
        ],
    )
    key = _derived_key(seed, f"server {period}")
    leaf = _built(
        subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"dify-kit {stack}")]),
        issuer=ca_name,
        key=key,
        signer=ca_key,
        start=start - EARLY,
        end=start - EARLY + VALID,
        extensions=[
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_usage(ca=False), True),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
            (x509.SubjectAlternativeName(names), False),
        ],
    )
    return SelfSigned(
        certificate=describe(_pem(leaf)),
        key=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
        ca=_pem(ca),
    )


def _derived_key(seed: str, purpose: str) -> ec.EllipticCurvePrivateKey:
    derive = HKDF(
        algorithm=hashes.SHA256(), length=DERIVED_BYTES, salt=None, info=f"dify-kit tls {purpose}".encode()
    )
    number = int.from_bytes(derive.derive(seed.encode()), "big")
    return ec.derive_private_key(number % (ORDER - 1) + 1, CURVE)


def _general_name(host: str) -> x509.GeneralName:
    address = address_of(host)
    return x509.IPAddress(address) if address else x509.DNSName(host)


def _constraints(names: Sequence[x509.GeneralName]) -> x509.NameConstraints:
    permitted: list[x509.GeneralName] = []
    for name in names:
        if isinstance(name, x509.IPAddress):
            permitted.append(x509.IPAddress(ipaddress.ip_network(str(name.value))))
        else:
            permitted.append(name)
    excluded: list[x509.GeneralName] = []
    # A kind of name of which none is permitted is free otherwise.
    if not any(isinstance(name, x509.IPAddress) for name in names):
        excluded += [x509.IPAddress(ipaddress.ip_network(every)) for every in ("0.0.0.0/0", "::/0")]
    if not any(isinstance(name, x509.DNSName) for name in names):
        excluded.append(x509.DNSName(""))
    return x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=excluded or None)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _built(
    *,
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    start: datetime,
    end: datetime,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> x509.Certificate:
    public, authority = key.public_key(), signer.public_key()
    extensions = [
        *extensions,
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), False),
    ]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .not_valid_before(start)
        .not_valid_after(end)
        .serial_number(_serial(public, start, extensions))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    # The random number in an ordinary signature would make another certificate each time.
    return builder.sign(signer, hashes.SHA256(), ecdsa_deterministic=True)


def _serial(
    public: ec.EllipticCurvePublicKey, start: datetime, extensions: Sequence[tuple[x509.ExtensionType, bool]]
) -> int:
    """Return 120 bits over what is certified: two certificates of one CA never share a number."""
    content = public.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    ) + b"".join(extension.public_bytes() for extension, _ in extensions)
    return int.from_bytes(hashlib.sha256(content + start.isoformat().encode()).digest()[:15], "big") or 1


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
