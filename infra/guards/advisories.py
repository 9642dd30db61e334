"""The known vulnerabilities of a release."""

from infra.catalogue.releases import Release


def warnings(release: Release) -> list[str]:
    """Return a line for each advisory of the release: what is possible, and the release that closes it."""
    return [
        f"Dify {release.version} has {advisory.id}: {advisory.summary}; dify:release {advisory.fixed_in} or newer "
        "closes it"
        for advisory in release.advisories
    ]
