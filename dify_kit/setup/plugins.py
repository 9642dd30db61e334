"""Pulumi's directory of plugins, and providers that were built here in it."""

import os
from pathlib import Path

from dify_kit.setup.commands import cache_directory


def plugin(name: str, version: str) -> Path:
    """Return where Pulumi keeps the program of a resource plugin."""
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    return home / "plugins" / f"resource-{name}-v{version}" / f"pulumi-resource-{name}"


def is_ours(place: Path) -> bool:
    """Tell whether a plugin's place holds a link into the kit's cache."""
    return place.is_symlink() and place.readlink().is_relative_to(cache_directory())


def offer(built: Path, place: Path) -> OSError | None:
    """Link a provider that was built here to its place among Pulumi's plugins. One that is there already stays.

    Returns the problem where that directory cannot be written.
    """
    if (place.is_file() and not is_ours(place)) or (is_ours(place) and place.readlink() == built):
        return None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to(built)
    except OSError as problem:
        return problem
    return None
