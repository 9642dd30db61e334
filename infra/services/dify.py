"""Dify's own services, and the proxies between its sandboxes and all other services."""

from collections.abc import Mapping
from pathlib import Path

from infra import container_scripts
from infra.catalogue.container_paths import CELERY_HEALTH_SCRIPT
from infra.catalogue.releases import Release
from infra.services.files import squid_files
from infra.services.spec import Detail, Details, File
from infra.settings.stack import Settings

_CELERY_HEALTH = Path(container_scripts.__file__).with_name("celery_health.py")


def celery(_settings: Settings, _release: Release) -> Details:
    """Return a Celery process: the script of its health check."""
    script = File(path=CELERY_HEALTH_SCRIPT, content=_CELERY_HEALTH.read_text(encoding="utf-8"))
    return Details(files=(script,))


def proxy(name: str) -> Detail:
    """Return the details of a forward proxy: its configuration."""

    def details(settings: Settings, _release: Release) -> Details:
        files = squid_files(name, settings)
        return Details(files=tuple(File(path=path, content=text) for path, text in files.items()))

    return details


DETAILS: Mapping[str, Detail] = {
    "worker": celery,
    "worker_beat": celery,
    "ssrf_proxy": proxy("ssrf_proxy"),
    "agent_ssrf_proxy": proxy("agent_ssrf_proxy"),
}
