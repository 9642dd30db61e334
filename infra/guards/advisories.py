"""Says which known vulnerabilities a release has, whenever a stack of it is planned or deployed."""

import pulumi

from infra.catalogue.releases import Release


def warnings(release: Release) -> list[str]:
    """Return a line for each advisory of the release: what is possible, and the release that closes it."""
    return [
        f"Dify {release.version} has {advisory.id}: {advisory.summary}; dify:release {advisory.fixed_in} or newer "
        "closes it"
        for advisory in release.advisories
    ]


def warn(release: Release) -> None:
    """Make a warning of Pulumi's of each advisory."""
    for line in warnings(release):
        pulumi.log.warn(line)
