"""Checks of a release's catalogue file, down to each value: what would fail a deployment late, or run another image.

`releases.load` reads what it needs; this finds all wrong shapes in one pass, with the file and the key. The
kit's own files are held to it by a test, an operator's (`dify:catalogue`) before they are used.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from infra.catalogue import checks, releases, selection
from infra.catalogue.releases import CATALOGUE, CatalogueError, Release
from infra.catalogue.route_groups import release_groups

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REPOSITORY = re.compile(r"[a-z0-9][a-z0-9._/:-]*[a-z0-9]")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_NAME = checks.VARIABLE
_PREFIX = re.compile(r"/[\w./-]*")


def problems(file: Path) -> list[str]:
    """Return everything that is wrong with a file, each as `<file>: <key> ...`; empty when it can be used."""
    try:
        release = releases.load(file)
        release.variables("api")
        document = releases.document(file)
    except CatalogueError as problem:
        return [str(problem)]
    return [f"{file}: {line}" for line in _all(release, document)]


def _all(release: Release, document: Mapping[str, Any]) -> Iterator[str]:
    for key in ("version", "facts", "dsl", "celery_app"):
        if key in document and not isinstance(document[key], str):
            yield f"{key} is {document[key]!r}: it is text; write it in quotes"
    for key in ("upgrade", "weaviate_ladder", "unknown"):
        for at, value in enumerate(document.get(key) or ()):
            if not isinstance(value, str):
                yield f"{key}[{at}] is {value!r}: it is text; write it in quotes"
    if not isinstance(document.get("replaces", False), bool):
        yield f"replaces is {document['replaces']!r}: it is true or false"
    yield from _oldest(release, document)
    yield from _services(document)
    yield from _images(release, document)
    yield from _routes(release, document)
    yield from _renamed(document)
    yield from _advisories(document)
    yield from _variables(release, document)


def _oldest(release: Release, document: Mapping[str, Any]) -> Iterator[str]:
    given = document.get("upgrade_from")
    if given is None:
        return
    if not checks.matches(given, releases.VERSION) or releases.version_number(given) >= release.number:
        yield f'upgrade_from is {given!r}: it is the version of an older release, such as "1.12.1"'


def _services(document: Mapping[str, Any]) -> Iterator[str]:
    listed = document["services"]
    known = sorted(selection.release_roles())
    for at, service in enumerate(listed):
        if not isinstance(service, str) or service not in known:
            yield f"services[{at}] is {service!r}: the kit runs {', '.join(known)}"
        elif service in listed[:at]:
            yield f"services[{at}] is {service!r}: listed twice"
    for service in sorted(selection.required_services().difference(map(str, listed))):
        yield f"services: {service} is missing; every stack runs it"


def _images(release: Release, document: Mapping[str, Any]) -> Iterator[str]:
    images = document["images"]
    required, role_of = selection.required_images(), selection.release_roles()
    known = required | set(role_of.values())
    for role, image in images.items():
        if role not in known:
            yield f"images.{role}: no such role; roles are {', '.join(sorted(known))}"
            continue
        for part, pattern, example in (
            ("repository", _REPOSITORY, "langgenius/dify-api"),
            ("tag", _TAG, '"1.29"'),
            ("digest", _DIGEST, "sha256: and 64 hexadecimal digits"),
        ):
            value = image.get(part)
            if part == "digest" and value is None:
                continue
            if not checks.matches(value, pattern):
                yield f"images.{role}.{part} is {value!r}: it is text such as {example}"
        if image.get("tag") == "latest":
            yield f"images.{role}.tag is 'latest': name a version; the next pull could bring another one"
    needed = required | {role_of[service] for service in release.services if service in role_of}
    for role in sorted(needed - images.keys()):
        yield f"images.{role} is missing: {{repository: ..., tag: ...}}"


def _routes(release: Release, document: Mapping[str, Any]) -> Iterator[str]:
    seen: set[str] = set()
    groups = release_groups()
    for at, route in enumerate(document["routes"]):
        where = f"routes[{at}]"
        prefix = route.get("prefix")
        if not checks.matches(prefix, _PREFIX):
            yield f"{where}.prefix is {prefix!r}: it is a path such as /v1"
        elif prefix in seen:
            yield f"{where}.prefix is {prefix!r}: listed twice"
        seen.add(str(prefix))
        if str(route.get("group")) not in groups:
            yield f"{where}.group is {route.get('group')!r}: it is one of {', '.join(sorted(groups))}"
        if str(route.get("service")) not in release.services:
            yield f"{where}.service is {route.get('service')!r}: not one of this release's services"
    if "/" not in seen:
        yield "routes: {prefix: /, group: web, service: web} is missing; nothing else would answer"


def _renamed(document: Mapping[str, Any]) -> Iterator[str]:
    for name, entry in (document.get("renamed") or {}).items():
        other = entry.get("name")
        if not checks.matches(other, _NAME):
            yield f"renamed.{name}.name is {other!r}: it is the variable's name in this release"
        if not isinstance(entry.get("values", {}), dict):
            yield f"renamed.{name}.values is {entry['values']!r}: it maps the kit's values to this release's"


def _advisories(document: Mapping[str, Any]) -> Iterator[str]:
    for at, entry in enumerate(document.get("advisories") or ()):
        for part in ("id", "fixed_in", "summary"):
            if not isinstance(entry.get(part), str):
                yield f"advisories[{at}].{part} is {entry.get(part)!r}: it is text"


def _variables(release: Release, document: Mapping[str, Any]) -> Iterator[str]:
    section = document["variables"]
    if set(section) == {"same_as"}:
        return
    known = set(selection.readers(complete=False))
    for service, entries in section.items():
        if service not in known:
            other = selection.variables_of(str(service))
            hint = f"they are those of {other}" if other != service else "no such service"
            yield f"variables.{service}: {hint}; known are {', '.join(sorted(known))}"
        for name in entries:
            if not checks.matches(name, _NAME):
                yield f"variables.{service}.{name}: not a variable's name"
    for service in selection.readers():
        if service in release.services and not section.get(service):
            yield f"variables.{service} is missing: what the service reads; the command `release import` makes it"


def shipped(version: str) -> bool:
    """Tell whether the kit itself has a file for a release."""
    return (CATALOGUE / f"{version}.yaml").is_file()
