"""The page about upgrades: what each release of the catalogue brings, compared with the one before it."""

from collections.abc import Iterator

from docsite.pages import Page
from infra.catalogue.releases import RELEASES, Release

SOURCE = "docs/releases-upgrade.md"
INTRODUCTION = """# Upgrades by release

What changes from each release of Dify to the next one that the kit has, read from its catalogue.
`dify-kit upgrade VERSION` shows what of it concerns your stack, backs up and deploys; `dify-kit rollback` goes back by
that backup ([guide](guides/upgrade.md)). A release can be skipped, unless it says otherwise: the notes of every release
in between count.

A release that is not here comes by an [import](guides/releases.md#import-one). `dify-kit doctor` names the known
vulnerabilities of the release that a stack has.
"""


def upgrade_page() -> Page:
    """Return the page, the newest release first."""
    releases = list(RELEASES.values())
    parts = [INTRODUCTION]
    for release, before in zip(releases, [*releases[1:], None], strict=True):
        parts.append("\n\n".join(_section(release, before)))
    return Page(path="releases/upgrade.md", source=SOURCE, text="\n\n".join(parts) + "\n")


def _section(release: Release, before: Release | None) -> Iterator[str]:
    """Yield the paragraphs about a release."""
    yield f"## {release.version}"
    if before is None:
        yield "The oldest release of the catalogue."
    else:
        yield f"From {before.version}:"
        changes = list(_changes(release, before)) or ["Services, routes and variables stay."]
        yield "\n".join(f"- {line}" for line in changes)
    if release.upgrade:
        yield "Notes:\n\n" + "\n".join(f"- {line}" for line in release.upgrade)
    if release.advisories:
        yield "Known vulnerabilities:\n\n" + "\n".join(
            f"- {one.id}, closed in {one.fixed_in}: {one.summary}." for one in release.advisories
        )
    if before is not None:
        yield "\n".join(_images(release, before))


def _changes(release: Release, before: Release) -> Iterator[str]:
    """Yield what services, routes and variables of the api came and went, each where there is something to say."""
    routes, old_routes = ({route.prefix for route in one.routes} for one in (release, before))
    variables, old_variables = (set(one.variables("api")) for one in (release, before))
    for what, names in (
        ("New services", release.services - before.services),
        ("Services that are gone", before.services - release.services),
        ("New routes", routes - old_routes),
        ("Routes that are gone", old_routes - routes),
        ("Variables of the api that exist no more, which `extraEnv` may have", old_variables - variables),
    ):
        if names:
            yield f"{what}: {', '.join(f'`{name}`' for name in sorted(names))}."
    if variables - old_variables:
        yield f"New variables of the api: {len(variables - old_variables)}."
    if release.dsl != before.dsl:
        yield f"Files of apps have version {release.dsl} (before: {before.dsl})."
    if release.upgrade_from:
        yield f"It migrates data of {release.upgrade_from} and newer: older data goes through that release."
    if release.weaviate_ladder:
        tags = ", ".join(f"`{tag}`" for tag in release.weaviate_ladder)
        how = "[how](guides/deploy.md#a-newer-weaviate)"
        yield f"Versions of Weaviate for an existing volume, one start each: {tags} ({how})."


def _images(release: Release, before: Release) -> Iterator[str]:
    """Yield a table of the images whose tag changes."""
    yield "| image | before | now |"
    yield "|---|---|---|"
    for role, image in sorted(release.images.items()):
        old = before.images.get(role)
        if old is None or (old.repository, old.tag) != (image.repository, image.tag):
            yield f"| `{image.repository}` | {f'`{old.tag}`' if old else 'none'} | `{image.tag}` |"
