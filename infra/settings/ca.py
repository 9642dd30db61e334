"""A setting that names a file with the certificates of a CA of one's own."""

from datetime import datetime
from pathlib import Path

from cryptography import x509

from infra.settings import certificates
from infra.settings.reader import Section


def read_ca(section: Section) -> str:
    """Read `caFile`; return its PEM text, empty when none is named or what is wrong was reported.

    The text ends with a line break: PEM texts are joined.
    """
    return read_certificates(section)[0]


def read_certificates(section: Section) -> tuple[str, list[x509.Certificate]]:
    """Read `caFile`; return its PEM text as `read_ca` does, and the certificates in it."""
    given = section.text("caFile")
    if not given:
        return "", []
    try:
        pem = Path(given).expanduser().read_text(encoding="utf-8")
        found = x509.load_pem_x509_certificates(pem.encode())
    except (OSError, ValueError):
        section.problems.add(
            section.key("caFile"), given, "is not a file with certificates in PEM", "name the CA's root file"
        )
        return "", []
    return pem.rstrip("\n") + "\n", found


def read_ca_bundle(section: Section) -> str:
    """Read `caFile`, of valid certificates of CAs alone; return them in PEM, without anything else of the file.

    Empty when none is named, or when what is wrong was reported.
    """
    now = certificates.now_utc()
    found = read_certificates(section)[1]
    for number, one in enumerate(found, start=1):
        if problem := _ca_problem(one, now):
            name = one.subject.rfc4514_string()
            section.problems.add(
                section.key("caFile"),
                section.text("caFile"),
                f"certificate {number} ({name}) {problem}",
                "name a file with valid certificates of your CA, without those of servers",
            )
            return ""
    return "".join(certificates.pem_of(one) for one in found)


def _ca_problem(one: x509.Certificate, now: datetime) -> str | None:
    try:
        is_ca = one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        is_ca = False
    if not is_ca:
        return "is not that of a CA: its basic constraints do not say CA:TRUE"
    if one.not_valid_after_utc <= now:
        return f"expired on {one.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if one.not_valid_before_utc > now:
        return f"is valid only from {one.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    return None
