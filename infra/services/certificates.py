"""Certificates by ACME: a job that lets nginx start without one, and certbot, which gets and renews them."""

from pathlib import Path

from infra import container_scripts
from infra.edge.paths import CHALLENGES, PUBLISHED
from infra.services.limits import limits_of
from infra.services.networks import ACME
from infra.services.spec import File, HealthCheck, Mount, ServiceSpec
from infra.settings.stack import Settings
from infra.settings.tls import Acme

# nginx and certbot run as the same user: nobody else reads the keys.
UID = 101
SCRIPT = "/opt/dify-kit/certificates.py"
CA_FILE = "/opt/dify-kit/acme-ca.pem"
LINEAGES = "/etc/letsencrypt"
SCRATCH = "/tmp/certbot"  # noqa: S108  # the container's own
# As Let's Encrypt advises: twice a day, each time only what is due.
INTERVAL_SECONDS = 12 * 3600
# The first certificate takes seconds; a CA may be slow.
READY_SECONDS = 240
_SOURCE = Path(container_scripts.__file__).with_name("certificates.py")

PREPARE, CERTBOT = "certificates", "certbot"


def lasting_volumes(settings: Settings) -> tuple[str, ...]:
    """Return the volumes that outlive the stack: the account, and certificates of which a CA gives only so many."""
    return ("acme",) if settings.tls.acme else ()


def passing_volumes(settings: Settings) -> tuple[str, ...]:
    """Return the volumes that are made anew: what nginx reads."""
    return ("certificates", "challenges") if settings.tls.acme else ()


def nginx_mounts(settings: Settings) -> tuple[Mount, ...]:
    """Return what nginx reads of them."""
    if not settings.tls.acme:
        return ()
    return (
        Mount(volume="certificates", path=PUBLISHED, read_only=True),
        Mount(volume="challenges", path=CHALLENGES, read_only=True),
    )


def preparing(settings: Settings) -> tuple[ServiceSpec, ...]:
    """Return the job that has to end before nginx starts."""
    if not settings.tls.acme:
        return ()
    return (
        ServiceSpec(
            name=PREPARE,
            image="certbot",
            networks=(),
            job=True,
            user="0",
            entrypoint=("python3", SCRIPT),
            command=("prepare",),
            environment=_environment(settings, settings.tls.acme),
            files=(_script(),),
            mounts=_mounts(),
            capabilities=("CHOWN", "DAC_OVERRIDE", "FOWNER"),
            limits=limits_of(PREPARE, settings),
            ready_timeout=60,
        ),
    )


def getting(settings: Settings) -> tuple[ServiceSpec, ...]:
    """Return certbot; it needs an nginx that answers."""
    acme = settings.tls.acme
    if not acme:
        return ()
    return (
        ServiceSpec(
            name=CERTBOT,
            image="certbot",
            networks=(ACME,),
            after=("nginx",),
            # With its group: certbot's image does not know this user.
            user=f"{UID}:{UID}",
            entrypoint=("python3", SCRIPT),
            command=("run",),
            environment=_environment(settings, acme),
            files=(_script(), *([File(path=CA_FILE, content=acme.ca)] if acme.ca else [])),
            mounts=_mounts(),
            tmpfs={"/tmp": "size=64m,mode=1777"},  # noqa: S108  # the container's own
            # Its last words are the reason when there is no certificate.
            health=HealthCheck(
                command=("python3", SCRIPT, "check"), interval=30, timeout=10, start_period=READY_SECONDS
            ),
            limits=limits_of(CERTBOT, settings),
            ready_timeout=READY_SECONDS,
        ),
    )


def _environment(settings: Settings, acme: Acme) -> dict[str, str]:
    return {
        "KIT_NAMES": ",".join(settings.tls.hosts),
        "KIT_EMAIL": acme.email,
        "KIT_DIRECTORY": acme.directory,
        "KIT_LINEAGES": LINEAGES,
        "KIT_PUBLISHED": PUBLISHED,
        "KIT_CHALLENGES": CHALLENGES,
        "KIT_SCRATCH": SCRATCH,
        "KIT_UID": str(UID),
        "KIT_INTERVAL_SECONDS": str(INTERVAL_SECONDS),
        # The user has no home.
        "HOME": "/tmp",  # noqa: S108  # the container's own
        **({"REQUESTS_CA_BUNDLE": CA_FILE} if acme.ca else {}),
    }


def _script() -> File:
    return File(path=SCRIPT, content=_SOURCE.read_text(encoding="utf-8"))


def _mounts() -> tuple[Mount, ...]:
    return (
        Mount(volume="acme", path=LINEAGES),
        Mount(volume="certificates", path=PUBLISHED),
        Mount(volume="challenges", path=CHALLENGES),
    )
