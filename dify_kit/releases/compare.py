"""The differences between an official compose folder and what the kit deploys for a release.

What has the same effect is no difference: a variable that the kit leaves out while the service's own default is what
compose sets, two spellings of one number, a folder of the host where the kit mounts a volume of the same path. Times of
health checks, restart policies and start commands are not compared.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from dify_kit.releases.topology import Service, Topology
from infra.catalogue.published_defaults import PUBLISHED_DEFAULTS
from infra.catalogue.releases import Release
from infra.catalogue.selection import readers
from infra.catalogue.variables import Variable

KINDS = ("service", "image", "variable", "mount", "network", "port", "health", "route")
GENERATED = "generated"
PUBLISHED = "published default"
_TRUE = frozenset({"true", "1", "yes", "on", "t", "y"})
# What Go has for a variable that is not there.
_GO_ZEROS = {"boolean": ("false", "0"), "integer": ("0",), "number": ("0",)}
_EMPTY = {"object": {"null"}}
_FALSE = frozenset({"false", "0", "no", "off", "f", "n"})


class Change(StrEnum):
    """How the kit differs: it lacks something, has something extra, or has it in another way."""

    LACKS = "lacks"
    EXTRA = "extra"
    DIFFERS = "differs"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One difference. `service` is empty for networks and routes; `official` and `kit` are what each has, in words.

    No secret is in them: what the kit generates is "generated", and what upstream publishes in its place is not said.
    `elsewhere`: a variable that the service does not read, and another service of the release does.
    """

    kind: str
    service: str
    name: str
    change: Change
    official: str | None = None
    kit: str | None = None
    elsewhere: bool = False


def differences(official: Topology, kit: Topology, release: Release) -> list[Difference]:
    """Return the differences, services first, each in the order of their names."""
    found: list[Difference] = []
    for name in sorted(official.services.keys() | kit.services.keys()):
        theirs, ours = official.services.get(name), kit.services.get(name)
        if theirs is None:
            found.append(Difference(kind="service", service=name, name=name, change=Change.EXTRA, kit=name))
        elif ours is None:
            found.append(
                Difference(
                    kind="service",
                    service=name,
                    name=name,
                    change=Change.LACKS,
                    official=", ".join([theirs.image or "built", *(f"profile {p}" for p in theirs.profiles)]),
                )
            )
        else:
            found.extend(_of_service(theirs, ours, release))
    found.extend(_each("network", "", _internal(official.networks), _internal(kit.networks)))
    found.extend(_each("route", "", _targets(official), _targets(kit)))
    return found


def _of_service(theirs: Service, ours: Service, release: Release) -> Iterator[Difference]:
    name = theirs.name
    yield from _each("image", name, _image(theirs), _image(ours))
    for one in _variables(theirs, ours, release.variables(name)):
        known = one.name in release.variables(name)
        yield replace(one, elsewhere=not known and _read_elsewhere(one.name, release))
    yield from _each("mount", name, _mounts(theirs), _mounts(ours))
    yield from _each("network", name, dict.fromkeys(theirs.networks, ""), dict.fromkeys(ours.networks, ""))
    yield from _each("port", name, _ports(theirs), _ports(ours))
    yield from _each("health", name, _health(theirs), _health(ours))


def _read_elsewhere(name: str, release: Release) -> bool:
    """Tell whether a service of the release reads a variable."""
    return any(name in release.variables(service) for service in readers(complete=False))


def _each(
    kind: str, service: str, official: Mapping[str, str], kit: Mapping[str, str]
) -> Iterator[Difference]:
    """Yield what two mappings of names to what they say do not have in common."""
    for name in sorted(official.keys() | kit.keys()):
        theirs, ours = official.get(name), kit.get(name)
        if theirs != ours:
            change = Change.EXTRA if theirs is None else Change.LACKS if ours is None else Change.DIFFERS
            yield Difference(
                kind=kind,
                service=service,
                name=name,
                change=change,
                official=theirs or None,
                kit=ours or None,
            )


def _image(service: Service) -> dict[str, str]:
    return {"image": service.image} if service.image else {}


def _mounts(service: Service) -> dict[str, str]:
    return dict.fromkeys((mount.target for mount in service.mounts), "")


def _ports(service: Service) -> dict[str, str]:
    return {f"{port.external}:{port.internal}": "" for port in service.ports}


def _health(service: Service) -> dict[str, str]:
    if not service.health:
        return {}
    text = " ".join(service.health.command)
    for secret in PUBLISHED_DEFAULTS:
        text = text.replace(secret, f"<{PUBLISHED}>")
    return {"health": text}


def _internal(networks: Mapping[str, bool]) -> dict[str, str]:
    return {name: "internal" if internal else "with a way out" for name, internal in networks.items()}


def _targets(topology: Topology) -> dict[str, str]:
    return {route.location: route.service for route in topology.routes}


def _variables(theirs: Service, ours: Service, known: Mapping[str, Variable]) -> Iterator[Difference]:
    for name in sorted(theirs.variables.keys() | ours.variables.keys()):
        variable = known.get(name)
        official, kit = theirs.variables.get(name), ours.variables.get(name)
        if name in ours.variables:
            # Reaches the service with everything else of the project: no statement about this service.
            there = name in theirs.variables and not (name in theirs.passing and variable is None)
            expected = official if there else (variable.default if variable else None)
            if kit is not None and (there or variable) and alike(variable, kit, expected):
                continue
            change = Change.DIFFERS if there else Change.EXTRA
            yield _variable(
                theirs.name, name, change, official if there else None, GENERATED if kit is None else kit
            )
        elif variable is None and name in theirs.passing:
            continue
        elif not (variable and alike(variable, official, variable.default)):
            if not official and variable is None:
                continue
            yield _variable(theirs.name, name, Change.LACKS, official, None)


def _variable(service: str, name: str, change: Change, official: str | None, kit: str | None) -> Difference:
    hidden = official and (kit == GENERATED or any(secret in official for secret in PUBLISHED_DEFAULTS))
    return Difference(
        kind="variable",
        service=service,
        name=name,
        change=change,
        official=PUBLISHED if hidden else official,
        kit=kit,
    )


def alike(variable: Variable | None, first: str | None, second: str | None) -> bool:
    """Tell whether two values of a variable have one effect. None is no value, and so is an empty one."""
    if (first or "") == (second or ""):
        return True
    if variable is None:
        return False
    nothing = {"", *(_GO_ZEROS.get(variable.type, ()) if variable.go else ())} | _EMPTY.get(
        variable.type, set()
    )
    if {first or "", second or ""} <= nothing:
        return True
    return bool(first and second) and _equal(variable, str(first), str(second))


def _equal(variable: Variable, first: str, second: str) -> bool:
    if variable.type == "boolean":
        return any({first.lower(), second.lower()} <= spellings for spellings in (_TRUE, _FALSE))
    if variable.type in ("integer", "number"):
        try:
            return float(first) == float(second)
        except ValueError:
            return False
    return variable.type == "url" and first.rstrip("/") == second.rstrip("/")
