"""The certificates that programs trust: the public authorities, and the CA of `dify:outbound` with them."""

import re
from functools import cache
from pathlib import Path

import certifi

from infra.settings.outbound import Outbound

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\n.*?\n-----END CERTIFICATE-----\n", re.DOTALL)


@cache
def public_roots() -> str:
    """Return the public authorities in PEM: Mozilla's, of the locked package certifi, without its comments."""
    return "".join(_CERTIFICATE.findall(Path(certifi.where()).read_text(encoding="utf-8")))


def roots(outbound: Outbound) -> str:
    """Return what programs trust, in PEM: the public authorities and the CA of the setting."""
    return public_roots() + outbound.ca
