"""The release catalogue: what each supported Dify release consists of, read from `infra/catalogue/<version>.yaml`.

Data, not logic: adding a release adds one file, and `dify-kit release check` says what it lacks. A file is read when
its release is first used. Imports nothing of Pulumi.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml

from infra.catalogue import selection
from infra.catalogue import variables as environment_variables
from infra.catalogue.images import Image, images_of_the_kit
from infra.catalogue.names import service_name, with_service_hosts
from infra.catalogue.variables import Variable
from infra.catalogue.yaml_reader import read_yaml

_Entry = TypeVar("_Entry")
CATALOGUE = Path(__file__).parent
# Majors of PostgreSQL behind the role `postgres`, by where images come from.
POSTGRES_MAJOR: Mapping[str, int] = MappingProxyType({"registry": 15, "mirror": 15, "local": 17})


@dataclass(frozen=True, kw_only=True)
class Route:
    """A path prefix of the edge, the policy group it belongs to, and the service that answers."""

    prefix: str
    group: str
    service: str


@dataclass(frozen=True, kw_only=True)
class Renamed:
    """The name that a release has for a variable of the kit, and the spelling of its values."""

    name: str
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Advisory:
    """A known vulnerability of a release: its id, the release that closes it, and what it makes possible."""

    id: str
    fixed_in: str
    summary: str


@dataclass(frozen=True, kw_only=True)
class Release:
    """One Dify release.

    `images` maps a role to its image; `services` are the long-running ones without data tier and vector
    store; `renamed` maps a variable's current name to what this release knows. `celery_app` is what its worker's health
    command asks, `dsl` the version of its apps' files. `upgrade` says what an upgrade to it asks of hands;
    `upgrade_from` is the oldest release whose data it migrates, empty where that is every one;
    `weaviate_ladder` are the tags that an older vector volume climbs, one start each. `facts` names the source that the
    variables were read from, where it is not the release itself; `unknown` says what an import could not know; `file`
    is where all this stands.
    """

    version: str
    images: Mapping[str, Image]
    services: frozenset[str]
    routes: tuple[Route, ...]
    renamed: Mapping[str, Renamed]
    celery_app: str
    dsl: str
    advisories: tuple[Advisory, ...] = ()
    upgrade: tuple[str, ...] = ()
    upgrade_from: str = ""
    weaviate_ladder: tuple[str, ...] = ()
    facts: str = ""
    unknown: tuple[str, ...] = ()
    file: Path = CATALOGUE

    def has(self, service: str) -> bool:
        """Tell whether this release runs the service."""
        return service in self.services

    @property
    def number(self) -> int:
        """The version as a number that grows with it: 1.17.1 is 1017001."""
        return version_number(self.version)

    def variables(self, service: str) -> Mapping[str, Variable]:
        """Return what the environment of a service may hold, by name; empty for one that is configured by files."""
        return _variables(self.file).get(selection.variables_of(service), MappingProxyType({}))

    def with_weaviate(self, tag: str) -> "Release":
        """Return this release with another version of Weaviate: a rung of its ladder."""
        image = self.images["weaviate"]
        if not tag or tag == image.tag:
            return self
        other = Image(repository=image.repository, tag=tag)
        return replace(self, images=MappingProxyType({**self.images, "weaviate": other}))


class CatalogueError(ValueError):
    """A catalogue file that cannot be used. The message names the file, the key and what is wrong."""


class Releases(Mapping[str, Release]):
    """The releases by version, newest first. Each file is read when its release is first used."""

    def __init__(self, directory: Path) -> None:
        self._files = {
            path.stem: path
            for path in sorted(directory.glob("*.yaml"), key=lambda path: path.stem)
            if VERSION.fullmatch(path.stem)
        }

    def __getitem__(self, version: str) -> Release:
        """Return a release. Raises KeyError for one without a file, CatalogueError for a file that is wrong."""
        return load(self._files[version])

    def __iter__(self) -> Iterator[str]:
        """Go through the versions, the newest first."""
        return iter(sorted(self._files, key=version_number, reverse=True))

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._files)

    def __contains__(self, version: object) -> bool:
        """Tell whether there is a file, without reading it."""
        return version in self._files


VERSION = re.compile(r"\d{1,3}\.\d{1,3}\.\d{1,3}")
_KEYS = frozenset(
    {
        "version",
        "facts",
        "dsl",
        "celery_app",
        "images",
        "services",
        "routes",
        "renamed",
        "advisories",
        "upgrade",
        "upgrade_from",
        "weaviate_ladder",
        "variables",
        # Of an operator's file: it stands in for the kit's own one, and what an import could not know.
        "replaces",
        "unknown",
    }
)
_REQUIRED_KEYS = ("version", "dsl", "celery_app", "images", "services", "routes", "variables")


@cache
def version_number(version: str) -> int:
    """Return a version as a number that grows with it: 1.17.1 is 1017001."""
    major, minor, patch = (int(part) for part in version.split("."))
    return (major * 1000 + minor) * 1000 + patch


@cache
def load(file: Path) -> Release:
    """Read one release from its file. Raises CatalogueError."""
    document = _document(file)
    unknown = sorted(document.keys() - _KEYS)
    if unknown:
        raise CatalogueError(
            f"{file}: {', '.join(unknown)}: not a key of a release; keys: {', '.join(sorted(_KEYS))}"
        )
    missing = [key for key in _REQUIRED_KEYS if not document.get(key)]
    if missing:
        raise CatalogueError(f"{file}: {', '.join(missing)}: missing")
    version = str(document["version"])
    if not VERSION.fullmatch(version) or version != file.stem:
        raise CatalogueError(f"{file}: version is {version!r}: it is that of the file's name, {file.stem!r}")
    images = {
        role: _entry(file, f"images.{role}", Image, entry)
        for role, entry in _map(file, document, "images").items()
    }
    routes = _list(file, document, "routes")
    return Release(
        version=version,
        images=MappingProxyType({**images, **images_of_the_kit()}),
        services=frozenset(str(service) for service in _list(file, document, "services")),
        routes=tuple(_entry(file, f"routes[{at}]", Route, route) for at, route in enumerate(routes)),
        renamed=MappingProxyType(
            {
                name: _entry(file, f"renamed.{name}", Renamed, entry)
                for name, entry in _map(file, document, "renamed").items()
            }
        ),
        celery_app=str(document["celery_app"]),
        dsl=str(document["dsl"]),
        advisories=tuple(
            _entry(file, f"advisories[{at}]", Advisory, entry)
            for at, entry in enumerate(_list(file, document, "advisories"))
        ),
        upgrade=tuple(str(line) for line in _list(file, document, "upgrade")),
        upgrade_from=str(document.get("upgrade_from") or ""),
        weaviate_ladder=tuple(str(tag) for tag in _list(file, document, "weaviate_ladder")),
        facts=str(document.get("facts", "")),
        unknown=tuple(str(line) for line in _list(file, document, "unknown")),
        file=file,
    )


@cache
def _variables(file: Path) -> Mapping[str, Mapping[str, Variable]]:
    """Return the variables of every service. A file may share those of another release of its folder or the kit."""
    section = _map(file, _document(file), "variables")
    if set(section) == {"same_as"}:
        beside = [directory / f"{section['same_as']}.yaml" for directory in (file.parent, CATALOGUE)]
        shared = next((path for path in beside if path.is_file() and path != file), None)
        if shared is None:
            raise CatalogueError(
                f"{file}: variables.same_as is {section['same_as']!r}: no file of that release"
            )
        return _variables(shared)
    found: dict[str, Mapping[str, Variable]] = {}
    for service, entries in section.items():
        if not isinstance(entries, dict):
            raise CatalogueError(
                f"{file}: variables.{service} is {entries!r}: it maps names to what they take"
            )
        found[service] = MappingProxyType(
            {name: _variable(file, service, name, entry) for name, entry in entries.items()}
        )
    return MappingProxyType(found)


def _variable(file: Path, service: str, name: str, entry: object) -> Variable:
    where = f"{file}: variables.{service}.{name}"
    if not isinstance(entry, dict):
        raise CatalogueError(f"{where} is {entry!r}: it is a map such as {{type: integer, minimum: 0}}")
    try:
        found = environment_variables.read(name, entry, go=service in selection.go_services())
    except (TypeError, ValueError) as problem:
        raise CatalogueError(f"{where}: {problem}") from None
    return found if found.compose is None else replace(found, compose=with_service_hosts(name, found.compose))


def document(file: Path) -> Mapping[str, Any]:
    """Return what a file holds, as it stands there. Raises CatalogueError."""
    return _document(file)


@cache
def _document(file: Path) -> dict[str, Any]:
    try:
        document = read_yaml(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        raise CatalogueError(f"{file}: cannot be read: {problem}") from None
    except yaml.YAMLError as problem:
        raise CatalogueError(f"{file}: is not YAML: {problem}") from None
    if not isinstance(document, dict):
        raise CatalogueError(
            f"{file}: holds no release: its top level is a map of {', '.join(_REQUIRED_KEYS)}"
        )
    return _named(file, document)


def _named(file: Path, document: dict[str, Any]) -> dict[str, Any]:
    """Return a file with the kit's names of services, where it may have those of the official compose file.

    What is wrong in another way stays as it is: `release_file` finds it.
    """
    found = dict(document)
    services, routes, entries = (document.get(key) for key in ("services", "routes", "variables"))
    if isinstance(services, list):
        found["services"] = [service_name(one) if isinstance(one, str) else one for one in services]
    if isinstance(routes, list):
        found["routes"] = [
            {**one, "service": service_name(str(one["service"]))} if _has_service(one) else one
            for one in routes
        ]
    if isinstance(entries, dict):
        by_name = {service_name(str(service)): one for service, one in entries.items()}
        for service in by_name:
            if len({str(one) for one in entries if service_name(str(one)) == service}) > 1:
                raise CatalogueError(
                    f"{file}: variables.{service}: there twice, in two spellings of the name"
                )
        found["variables"] = by_name
    return found


def _has_service(route: object) -> bool:
    return isinstance(route, dict) and isinstance(route.get("service"), str)


def _map(file: Path, document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key) or {}
    if not isinstance(value, dict):
        raise CatalogueError(f"{file}: {key} is {value!r}: it is a map")
    return value


def _list(file: Path, document: Mapping[str, Any], key: str) -> list[Any]:
    value = document.get(key) or []
    if not isinstance(value, list):
        raise CatalogueError(f"{file}: {key} is {value!r}: it is a list")
    return value


def _entry(file: Path, where: str, kind: Callable[..., _Entry], entry: object) -> _Entry:
    """Return an entry as what it is. Raises CatalogueError for other or missing parts."""
    if not isinstance(entry, dict):
        raise CatalogueError(f"{file}: {where} is {entry!r}: it is a map")
    parts = {
        name: {str(key): str(text) for key, text in value.items()} if isinstance(value, dict) else str(value)
        for name, value in entry.items()
    }
    try:
        return kind(**parts)
    except TypeError as problem:
        reason = str(problem).partition("() ")[2]
        raise CatalogueError(f"{file}: {where}: {reason or problem}") from None


RELEASES: Mapping[str, Release] = Releases(CATALOGUE)


@cache
def catalogue(directory: Path | None = None) -> Mapping[str, Release]:
    """Return the kit's releases, with those of an operator's own directory, newest first.

    Raises CatalogueError for a directory without releases, for a file whose name is no release, and for one that has
    the name of one of the kit's releases and does not say that it `replaces` it.
    """
    if directory is None:
        return RELEASES
    own = Releases(directory)
    for path in sorted(directory.glob("*.y*ml")):
        if path.suffix != ".yaml" or path.stem not in own:
            raise CatalogueError(f"{path}: not the name of a release: <version>.yaml, such as 1.18.0.yaml")
    if not own:
        raise CatalogueError(f"{directory}: holds no <version>.yaml")
    for version in own:
        file = directory / f"{version}.yaml"
        if version in RELEASES and _document(file).get("replaces") is not True:
            raise CatalogueError(
                f"{file}: replaces is missing: the kit has a file of {version} itself; "
                "`replaces: true` says that this one takes its place"
            )
    return _Merged(own, RELEASES)


class _Merged(Mapping[str, Release]):
    """Several catalogues as one; the first that has a release says what it is."""

    def __init__(self, *parts: Mapping[str, Release]) -> None:
        self._parts = parts

    def __getitem__(self, version: str) -> Release:
        for part in self._parts:
            if version in part:
                return part[version]
        raise KeyError(version)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({one for part in self._parts for one in part}, key=version_number, reverse=True))

    def __len__(self) -> int:
        return len({one for part in self._parts for one in part})

    def __contains__(self, version: object) -> bool:
        return any(version in part for part in self._parts)
