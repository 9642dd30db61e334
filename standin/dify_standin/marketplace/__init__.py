"""The replacement for the marketplace: one package, made here of the files next to this one."""

import io
import re
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path

from dify_standin import packages
from dify_standin.config import flag

_HERE = Path(__file__).parent
_FILES = ("manifest.yaml", "provider/openai_api_compatible.yaml")
_IDENTIFIER = re.compile(r"[\w-]+/[\w-]+:[\w.-]+@[0-9a-f]{32,64}")
_EPOCH = (2026, 1, 1, 0, 0, 0)


def package() -> bytes:
    """Return the package as a file. The same bytes each time, so its identifier is the same on every machine."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in _FILES:
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), (_HERE / name).read_bytes())
    return buffer.getvalue()


@cache
def offered() -> packages.Package:
    """Return the one package of the catalogue."""
    return packages.read(package())


def find(identifier: str) -> packages.Package | None:
    """Return the package that an identifier means, None for a plugin that is not in the catalogue.

    Any version and hash of the plugin mean this package, which then has that identifier: settings that pin one of the
    real marketplace work with the stand-in too.
    """
    one = offered()
    if not open_here() or not _IDENTIFIER.fullmatch(identifier):
        return None
    if packages.plugin_of(identifier) != packages.plugin_of(one.identifier):
        return None
    declaration = {**one.declaration, "version": packages.version_of(identifier)}
    return replace(one, identifier=identifier, declaration=declaration)


def latest(plugin: str) -> str | None:
    """Return the identifier of a plugin's newest version, None for one that is not in the catalogue."""
    one = offered()
    return one.identifier if open_here() and plugin == packages.plugin_of(one.identifier) else None


def open_here() -> bool:
    """Return whether there is a marketplace: without it all is as without a network."""
    return flag("DIFY_STANDIN_MARKETPLACE", default=True)
