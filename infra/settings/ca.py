"""A setting that names a file with the certificates of a CA of one's own."""

from pathlib import Path

from infra.settings import certificates
from infra.settings.reader import Section


def read_ca(section: Section) -> str:
    """Read `caFile`; return its PEM text, empty when none is named or what is wrong was reported."""
    given = section.text("caFile")
    if not given:
        return ""
    try:
        pem = Path(given).expanduser().read_text(encoding="utf-8")
        certificates.describe(pem)
    except (OSError, ValueError):
        section.problems.add(
            section.key("caFile"), given, "is not a file with certificates in PEM", "name the CA's root file"
        )
        return ""
    return pem
