"""The certificate that the edge presents at its published address."""

import socket
import ssl
from datetime import UTC, datetime

from cryptography import x509
from cryptography.x509.oid import NameOID

from dify_kit.watch.report import Certificate

SECONDS = 5.0


def presented(address: str, port: int, host: str, source: str, preface: bytes = b"") -> Certificate:
    """Return the certificate for a host name; `preface` is sent before TLS. Raises OSError when TLS does not answer."""
    # It is looked at, and not relied on: the certificate of a self-signed stack, or one that has ended, is shown too.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((address, port), timeout=SECONDS) as plain:
        plain.sendall(preface)
        with context.wrap_socket(plain, server_hostname=host) as secured:
            presented_one = secured.getpeercert(binary_form=True)
    if not presented_one:
        raise OSError("it presents no certificate")
    return read(presented_one, source, datetime.now(tz=UTC))


def read(der: bytes, source: str, now: datetime) -> Certificate:
    """Return what is shown of a certificate."""
    found = x509.load_der_x509_certificate(der)
    ends = found.not_valid_after_utc
    return Certificate(
        source=source,
        subject=", ".join(_names(found)) or _name(found.subject),
        issuer=_name(found.issuer),
        ends=ends,
        days_left=(ends - now).days,
    )


def _name(name: x509.Name) -> str:
    common = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common[0].value) if common else name.rfc4514_string()


def _names(found: x509.Certificate) -> list[str]:
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(one.value) for one in names]
