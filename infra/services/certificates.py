"""Certificates by ACME: a job that lets nginx start without one, and certbot, which gets and renews them."""

from collections.abc import Mapping
from pathlib import Path

from infra import container_scripts
from infra.catalogue.container_paths import (
    CERTIFICATES_SCRIPT,
    CHALLENGES,
    EDGE_UID,
    LINEAGES,
    PUBLISHED,
)
from infra.catalogue.releases import Release
from infra.catalogue.services import CERTBOT
from infra.services.spec import Detail, Details, File
from infra.settings.stack import Settings
from infra.settings.tls import Acme

CA_FILE = "/opt/dify-kit/acme-ca.pem"
SCRATCH = "/tmp/certbot"  # noqa: S108  # the container's own
# As Let's Encrypt advises: twice a day, each time only what is due.
INTERVAL_SECONDS = 12 * 3600
_SOURCE = Path(container_scripts.__file__).with_name("certificates.py")


def prepare(settings: Settings, _release: Release) -> Details:
    """Return the job that has to end before nginx starts."""
    return Details(
        command=("prepare",), environment=_environment(settings, _acme(settings)), files=(_script(),)
    )


def certbot(settings: Settings, _release: Release) -> Details:
    """Return certbot; it needs an nginx that answers."""
    ca = _acme(settings).ca
    if ca and settings.outbound:
        # A proxy that decrypts shows certificates of its own.
        ca += settings.outbound.ca
    return Details(
        command=("run",),
        environment=_environment(settings, _acme(settings)),
        files=(_script(), *([File(path=CA_FILE, content=ca)] if ca else [])),
    )


def _acme(settings: Settings) -> Acme:
    if settings.tls.acme is None:
        raise ValueError("certificates come from a CA with dify:tls.mode acme alone")
    return settings.tls.acme


def _environment(settings: Settings, acme: Acme) -> dict[str, str]:
    return {
        "KIT_NAMES": ",".join(settings.tls.hosts),
        "KIT_EMAIL": acme.email,
        "KIT_DIRECTORY": acme.directory,
        "KIT_LINEAGES": LINEAGES,
        "KIT_PUBLISHED": PUBLISHED,
        "KIT_CHALLENGES": CHALLENGES,
        "KIT_SCRATCH": SCRATCH,
        "KIT_UID": str(EDGE_UID),
        "KIT_INTERVAL_SECONDS": str(INTERVAL_SECONDS),
        # The user has no home.
        "HOME": "/tmp",  # noqa: S108  # the container's own
        **({"REQUESTS_CA_BUNDLE": CA_FILE} if acme.ca else {}),
    }


def _script() -> File:
    return File(path=CERTIFICATES_SCRIPT, content=_SOURCE.read_text(encoding="utf-8"))


DETAILS: Mapping[str, Detail] = {"certificates": prepare, CERTBOT: certbot}
