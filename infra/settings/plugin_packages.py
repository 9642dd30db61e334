"""Packages of Dify's plugins, as settings name them: by the marketplace's identifier, or by a file."""

import hashlib
import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from infra.catalogue.yaml_reader import read_yaml
from infra.settings.dify import Plugins
from infra.settings.reader import Section

MANIFEST = "manifest.yaml"
_MEGABYTE = 1024 * 1024
_MAX_MANIFEST = _MEGABYTE
_NAME = r"[a-z0-9_-]+/[a-z0-9_-]+"
# author/name, or with a version and the SHA-256 of the package's file.
IDENTIFIER = re.compile(rf"({_NAME})(:[0-9A-Za-z.+-]+@[0-9a-f]{{64}})?")


@dataclass(frozen=True, kw_only=True)
class Package:
    """A plugin (`author/name`).

    `pinned` is the identifier of one version, empty for the marketplace's newest at the first installation. With `file`
    the package is uploaded. `keep`: the plugin stays in Dify when it leaves the settings. `file_setting` is the key of
    the setting that names its file.
    """

    plugin: str
    file_setting: str
    pinned: str = ""
    file: Path | None = None
    keep: bool = True


def read_package(section: Section, plugins: Plugins, part: str = "identifier") -> Package | None:
    """Read a package, whose identifier is in `part`; None, and a problem, when it is none."""
    section.refuse_unknown()
    named, file = section.text(part), section.text("file")
    keep = section.boolean("keep")
    if file:
        return _from_file(section, plugins, named, Path(file).expanduser(), keep=keep)
    found = IDENTIFIER.fullmatch(named)
    if not found:
        section.problems.add(
            section.key(part),
            named,
            "is not a plugin",
            "use author/name, author/name:version@sha256, or file: for a package on this machine",
        )
        return None
    if not plugins.marketplace:
        section.problems.add(
            section.key(part),
            named,
            "comes from the marketplace, and plugins.marketplace is false",
            "set file to a package on this machine, or plugins.marketplace to true",
        )
    return Package(
        plugin=found[1],
        pinned=named if found[2] else "",
        keep=keep,
        file_setting=section.key("file"),
    )


def _from_file(section: Section, plugins: Plugins, named: str, file: Path, *, keep: bool) -> Package | None:
    key = section.key("file")
    content, problem = _content(file)
    identifier = "" if problem else _identifier(content)
    if not problem and not identifier:
        problem = f"is not a plugin package: no zip file with author, name and version in {MANIFEST}"
    elif len(content) > plugins.max_package_megabytes * _MEGABYTE:
        problem = "is larger than plugins.maxPackageMegabytes"
    if problem:
        section.problems.add(key, str(file), problem, "name a package, a .difypkg file, by its absolute path")
        return None
    plugin, _, pinned = identifier.partition(":")
    digest = pinned.rpartition("@")[2]
    wanted = section.text("sha256")
    if wanted and wanted != digest:
        section.problems.add(
            section.key("sha256"),
            wanted,
            f"is not the checksum of {file}, which is {digest}",
            "get the package again, or correct the checksum",
        )
    if named and IDENTIFIER.fullmatch(named) and named.partition(":")[0] != plugin:
        section.problems.add(
            key, str(file), f"is a package of {plugin}, not of {named}", "name the right one"
        )
    return Package(plugin=plugin, pinned=identifier, file=file, keep=keep, file_setting=key)


def _content(file: Path) -> tuple[bytes, str]:
    """Return what a file holds, and why it cannot be read."""
    if not file.is_absolute():
        return b"", "is not an absolute path"
    try:
        return file.read_bytes(), ""
    except OSError as cause:
        return b"", f"cannot be read: {cause.strerror}"


def _identifier(content: bytes) -> str:
    """Return `author/name:version@sha256` of a package; empty for a file that is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(MANIFEST) as file:
            manifest = read_yaml(file.read(_MAX_MANIFEST))
        plugin = f"{manifest['author']}/{manifest['name']}:{manifest['version']}"
    except (zipfile.BadZipFile, KeyError, TypeError, OSError, yaml.YAMLError):
        return ""
    identifier = f"{plugin}@{hashlib.sha256(content).hexdigest()}"
    return identifier if IDENTIFIER.fullmatch(identifier) else ""
