"""All guards in their order, for the program."""

from collections.abc import Mapping

from infra.catalogue.releases import Release
from infra.guards import advisories, images, ports, volumes
from infra.settings.stack import Settings


def check(settings: Settings, release: Release, provider_host: str) -> Mapping[str, str]:
    """Raise pulumi.RunError when the stack cannot be deployed as its settings say; warn of known vulnerabilities.

    `provider_host` is the stack's `docker:host`. Returns role -> image id in mode `preloaded`; nothing in other modes.
    """
    volumes.check(settings)
    ports.check(settings, provider_host)
    advisories.warn(release)
    return images.check(settings, release)
