"""Makes a catalogue file from an official compose folder.

The folder says images, services, routes and the variables that it sets; facts, where there are any, say the types. The
rest comes from a release that the kit knows, the base. What neither says is listed in the file, below `unknown`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from dify_kit.releases import facts as catalogue_facts
from dify_kit.releases.compare import Change, Difference
from dify_kit.releases.reasons import Reason
from dify_kit.releases.topology import Service, Topology
from infra.catalogue import selection
from infra.catalogue import services as service_table
from infra.catalogue.images import ROLES, Image
from infra.catalogue.releases import Release
from infra.catalogue.route_groups import release_groups
from infra.catalogue.variables import Variable

Entry = dict[str, Any]

_REFERENCE = re.compile(r"(?P<repository>.+?)(?::(?P<tag>[\w.-]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A catalogue file's text, and the entries of its list `unknown`: what no source states."""

    text: str
    unknown: tuple[str, ...]


def version_of(folder: Topology) -> str | None:
    """Return the release that the folder's api image names, None where it names none."""
    api = folder.services.get("api")
    tag = _image(api).tag if api and api.image else ""
    return tag if _VERSION.fullmatch(tag) else None


def imported(
    folder: Topology,
    version: str,
    base: Release,
    reasons: tuple[Reason, ...],
    *,
    settings: Mapping[str, Any] | None = None,
    daemon: Mapping[str, Any] | None = None,
) -> Imported:
    """Return the catalogue file of a release. `settings` and `daemon` are facts as tools/catalogue reads them."""
    return _Import(folder, version, base, reasons, settings=settings, daemon=daemon).done()


class _Import:
    """One folder on its way into one file."""

    def __init__(
        self,
        folder: Topology,
        version: str,
        base: Release,
        reasons: tuple[Reason, ...],
        *,
        settings: Mapping[str, Any] | None,
        daemon: Mapping[str, Any] | None,
    ) -> None:
        self._folder = folder
        self._version = version
        self._base = base
        self._reasons = reasons
        self._settings = settings
        self._daemon = daemon
        self._unknown: list[str] = []

    def done(self) -> Imported:
        services = self._services()
        document: dict[str, Any] = {
            "version": self._version,
            "dsl": self._base.dsl,
            "celery_app": self._base.celery_app,
            "images": self._images(services),
            "services": services,
            "routes": self._routes(services),
        }
        self._unknown += [
            f"dsl: {self._base.dsl} is that of {self._base.version}; the console shows it in an exported app",
            f"celery_app: {self._base.celery_app} is that of {self._base.version}",
            "advisories: known vulnerabilities of this release",
            f"upgrade: what an upgrade from {self._base.version} asks of hands, by its notes",
        ]
        if self._base.renamed:
            document["renamed"] = {
                name: {"name": entry.name, **({"values": dict(entry.values)} if entry.values else {})}
                for name, entry in self._base.renamed.items()
            }
            self._unknown.append(f"renamed: as in {self._base.version}")
        self._ladder(document)
        variables = self._variables()
        document["unknown"] = self._unknown
        head = (
            f"# Dify {self._version}, imported from its compose folder by `dify-kit release import`; types and what\n"
            f"# the folder does not say come from {self._base.version}. `unknown` lists what to look up: take each\n"
            "# line out when it is done.\n"
        )
        body = "\n".join(
            yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=120)
            for key, value in document.items()
        )
        return Imported(
            text=f"{head}{body}\n{catalogue_facts.section(variables)}", unknown=tuple(self._unknown)
        )

    def _ladder(self, document: dict[str, Any]) -> None:
        """Return the base's upgrade steps for the base's Weaviate; for another version the operator names them."""
        weaviate, before = document["images"].get("weaviate", {}), self._base.images["weaviate"]
        if weaviate.get("tag") == before.tag:
            if self._base.weaviate_ladder:
                document["weaviate_ladder"] = list(self._base.weaviate_ladder)
        elif weaviate:
            self._unknown.append(
                f"weaviate_ladder: the versions by which a volume of {before.tag} climbs to {weaviate['tag']}"
            )

    def _services(self) -> list[str]:
        for name, service in sorted(self._folder.services.items()):
            known = name in service_table.SERVICES
            if not known and not service.profiles and not self._explained("service", name, name):
                self._unknown.append(
                    f"services.{name}: the kit has no description of this service ({service.image or 'built'})"
                )
        return sorted(name for name in self._folder.services if name in selection.release_roles())

    def _images(self, services: list[str]) -> dict[str, Entry]:
        found = {}
        role_of = selection.release_roles()
        listed = {role_of[service] for service in selection.required_services().union(services)}
        for role in sorted(selection.required_images() | listed):
            image = self._image_of(role, self._folder.services.get(selection.service_of_role(role)))
            if image:
                found[role] = {
                    "repository": image.repository,
                    "tag": image.tag,
                    **({"digest": image.digest} if image.digest else {}),
                }
        return found

    def _image_of(self, role: str, service: Service | None) -> Image | None:
        known = self._base.images.get(role)
        if service is None or service.image is None:
            self._unknown.append(
                f"images.{role}: the folder has none" + (f"; that of {self._base.version}" if known else "")
            )
            return known
        theirs = _image(service)
        if ROLES[role].dify:
            if theirs.tag != self._version:
                self._unknown.append(
                    f"images.{role}.tag: the folder names {theirs.tag or 'none'}, not {self._version}"
                )
            theirs = Image(
                repository=theirs.repository,
                tag=self._version,
                digest=theirs.digest if theirs.tag == self._version else None,
            )
        if known and (known.repository, known.tag) == (theirs.repository, theirs.tag):
            return known
        ours = f"{known.repository}:{known.tag}" if known else None
        # The kit pins another version intentionally.
        if known and self._explained("image", service.name, "image", official=service.image, kit=ours):
            return known
        if not theirs.tag or theirs.tag == "latest":
            self._unknown.append(f"images.{role}.tag: the folder names no version")
            return known
        return theirs

    def _explained(
        self, kind: str, service: str, name: str, *, official: str | None = None, kit: str | None = None
    ) -> bool:
        change = Change.DIFFERS if official and kit else Change.LACKS
        one = Difference(kind=kind, service=service, name=name, change=change, official=official, kit=kit)
        return any(reason.explains(one, self._version) for reason in self._reasons)

    def _routes(self, services: list[str]) -> list[Entry]:
        groups = {route.prefix: route.group for route in self._base.routes}
        found = []
        for route in self._folder.routes:
            if route.service not in services:
                self._unknown.append(f"routes.{route.location}: {route.service} is no service of the file")
            elif route.location not in groups:
                # Closed until the catalogue names the group whose limits and origins apply.
                self._unknown.append(
                    f"routes.{route.location}: leads to {route.service}; left out until you name its group"
                    f" ({', '.join(sorted(release_groups()))})"
                )
            else:
                found.append(
                    {"prefix": route.location, "group": groups[route.location], "service": route.service}
                )
        return found

    def _variables(self) -> dict[str, dict[str, Entry]]:
        facts = {
            "services": {
                name: {
                    "variables": {
                        key: value for key, value in one.variables.items() if key not in one.passing
                    }
                }
                for name, one in self._folder.services.items()
            }
        }
        made = catalogue_facts.variables(facts, self._settings, self._daemon)
        typed = {"api": self._settings is not None, "plugin-daemon": self._daemon is not None}
        for service, entries in made.items():
            if not typed.get(service):
                set_there = facts["services"][service]["variables"]
                made[service] = dict(sorted(self._with_base(service, entries, set_there)))
        return made

    def _with_base(
        self, service: str, made: Mapping[str, Entry], set_there: Mapping[str, str | None]
    ) -> Iterator[tuple[str, Entry]]:
        """Yield what the base knows, with this folder's values, and what is new in the folder."""
        known = self._base.variables(service)
        for name, variable in known.items():
            entry = _entry(variable)
            entry.pop("compose", None)
            yield name, catalogue_facts.with_compose(name, entry, set_there.get(name))
        # A name that api gets too came with a file that many share: api is the one that reads it.
        shared = {} if service in {"api", "web"} else self._folder.services["api"].variables
        for name, entry in made.items():
            if name in known or name in shared or self._read_elsewhere(service, name):
                continue
            if self._explained("variable", service, name, official=set_there.get(name) or ""):
                continue
            yield name, entry
            self._unknown.append(f"variables.{service}.{name}: new; its type, {entry['type']}, is a guess")

    def _read_elsewhere(self, service: str, name: str) -> bool:
        return any(name in self._base.variables(other) for other in selection.readers() if other != service)


def _entry(variable: Variable) -> Entry:
    """Return a variable as a catalogue file writes it."""
    parts = {
        "type": variable.type,
        "nullable": variable.nullable or None,
        "values": list(variable.values) or None,
        "minimum": variable.minimum,
        "above": variable.above,
        "maximum": variable.maximum,
        "below": variable.below,
        "default": _typed(variable),
        "compose": variable.compose,
        "required": variable.required or None,
    }
    return {name: value for name, value in parts.items() if value is not None}


def _typed(variable: Variable) -> object:
    """Return the default with its type, so that the file reads as those of the kit."""
    text = variable.default
    if text is None or variable.go:
        return text
    if variable.type == "boolean" and text in {"true", "false"}:
        return text == "true"
    return int(text) if variable.type == "integer" and re.fullmatch(r"-?\d+", text) else text


def _image(service: Service) -> Image:
    match = _REFERENCE.fullmatch(service.image or "")
    if match is None:
        return Image(repository=service.image or "", tag="")
    return Image(repository=match["repository"], tag=match["tag"] or "", digest=match["digest"])
