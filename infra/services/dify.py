"""Dify's own services, and the proxies between its sandboxes and all other services."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from infra import container_scripts
from infra.catalogue import services
from infra.catalogue.container_paths import CELERY_HEALTH_SCRIPT, SQUID_PARENT_FILE
from infra.catalogue.releases import Release
from infra.services.files import squid_files, squid_parent
from infra.services.spec import Detail, Details, File
from infra.settings.stack import Settings

_PARENT = "KIT_PARENT"
# An uploaded file belongs to root, and squid's own user could read it only if all could.
_WITH_LOGIN = f"""umask 077; printf '%s\\n' "${_PARENT}" > {SQUID_PARENT_FILE}; unset {_PARENT}; exec "$@" """
_CELERY_HEALTH = Path(container_scripts.__file__).with_name("celery_health.py")


def celery(_settings: Settings, _release: Release) -> Details:
    """Return a Celery process: the script of its health check."""
    script = File(path=CELERY_HEALTH_SCRIPT, content=_CELERY_HEALTH.read_text(encoding="utf-8"))
    return Details(files=(script,))


def proxy(name: str) -> Detail:
    """Return the details of a forward proxy: its configuration."""

    def details(settings: Settings, _release: Release) -> Details:
        files = squid_files(name, settings)
        return replace(
            _with_login(name, settings),
            files=tuple(File(path=path, content=text) for path, text in files.items()),
        )

    return details


def _with_login(name: str, settings: Settings) -> Details:
    """Return how squid starts where its way out requires a password: the line with it comes by a variable."""
    parent = settings.outbound.proxy if settings.outbound else None
    if parent is None or parent.login is None:
        return Details()
    return Details(
        entrypoint=("sh", "-c", _WITH_LOGIN, "squid", *(services.SERVICES[name].entrypoint or ())),
        environment={_PARENT: parent.login.userinfo.apply(partial(squid_parent, parent))},
    )


DETAILS: Mapping[str, Detail] = {
    "worker": celery,
    "worker-beat": celery,
    "ssrf-proxy": proxy("ssrf-proxy"),
    "agent-ssrf-proxy": proxy("agent-ssrf-proxy"),
}
