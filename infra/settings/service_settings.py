"""What is set for single services: variables (`dify:extraEnv`) and limits (`dify:resources`)."""

from collections.abc import Container, Mapping
from dataclasses import dataclass

from infra import hints
from infra.catalogue import checks, selection
from infra.catalogue import services as catalogue
from infra.catalogue.names import service_name
from infra.catalogue.releases import Release
from infra.catalogue.variables import problems
from infra.settings.reader import Section
from infra.settings.secrets import OWNED_VARIABLES, SECRET_VARIABLES, SEVERAL_REDIS
from infra.settings.vector_server import is_outside

MAX_MEMORY = 1024 * 1024
MAX_CPUS = 256.0
MIN_PIDS, MAX_PIDS = 64, 1_000_000
# The stand-in's own variables; nothing else reads them.
STAND_IN_PREFIX = "DIFY_STANDIN_"
QDRANT_GRPC = frozenset({"QDRANT_GRPC_ENABLED", "QDRANT_GRPC_PORT"})


@dataclass(frozen=True, kw_only=True)
class ServiceLimits:
    """Own limits of a service; None keeps the default. `memory` in MiB, `cpus` in cores, `pids` with threads."""

    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None


def read_extra_env(top: Section, release: Release) -> dict[str, dict[str, str]]:
    """Read `dify:extraEnv`: variables by service."""
    result: dict[str, dict[str, str]] = {}
    for given, variables in top.mapping("extraEnv").items():
        service = service_name(given)
        if not _is_service(top, release, "extraEnv", given, variables, before=result):
            continue
        if service in selection.without_variables():
            top.problems.add(
                f"extraEnv.{given}",
                variables,
                "this service reads no variables",
                _without_environment(release, service),
            )
            continue
        section = Section(
            top.problems, variables if isinstance(variables, dict) else {}, {}, f"extraEnv.{given}."
        )
        if not isinstance(variables, dict):
            top.problems.add(f"extraEnv.{given}", variables, "not an object", "use {NAME: value}")
        for name in section.values:
            if not checks.VARIABLE.fullmatch(name):
                top.problems.add(
                    section.key(name), name, "is not a variable's name", "use letters, digits and _"
                )
            if setting := SECRET_VARIABLES.get(name):
                top.problems.add_secret(
                    section.key(name), "comes from a setting", f"set dify:{setting} instead"
                )
            _check_owned(section, name)
            if name in QDRANT_GRPC and is_outside(top):
                top.problems.add(
                    section.key(name),
                    section.values[name],
                    "the stack reaches an external Qdrant by HTTP alone",
                    "remove it",
                )
        result[service] = {name: section.text(name) for name in section.values}
        _check_variables(top, release, given, result[service])
    return result


def read_resources(top: Section, release: Release) -> dict[str, ServiceLimits]:
    """Read `dify:resources`: limits by service."""
    result: dict[str, ServiceLimits] = {}
    for given, value in top.mapping("resources").items():
        service = service_name(given)
        if not _is_service(top, release, "resources", given, value, before=result):
            continue
        section = Section(
            top.problems,
            value if isinstance(value, dict) else {},
            {"memory": None, "cpus": None, "pids": None},
            f"resources.{given}.",
        )
        if not isinstance(value, dict):
            top.problems.add(
                f"resources.{given}",
                value,
                "not an object",
                "use {memory: MiB, cpus: cores, pids: processes}",
            )
        section.refuse_unknown()
        memory, cpus, pids = (section.raw(part) for part in ("memory", "cpus", "pids"))
        least = catalogue.SERVICES[service].least_memory
        result[service] = ServiceLimits(
            memory=None if memory is None else section.integer("memory", least, MAX_MEMORY),
            cpus=None if cpus is None else section.number("cpus", 0.1, MAX_CPUS),
            pids=None if pids is None else section.integer("pids", MIN_PIDS, MAX_PIDS),
        )
    return result


def _check_owned(section: Section, name: str) -> None:
    """Report a variable that follows a setting, which also decides about services, networks and volumes."""
    if setting := OWNED_VARIABLES.get(name):
        section.problems.add(
            section.key(name), section.values[name], "comes from a setting", f"set dify:{setting} instead"
        )
    if name in SEVERAL_REDIS:
        section.problems.add(
            section.key(name),
            section.values[name],
            "Sentinel and Cluster are not supported: the stack reaches one Redis server",
            "remove it, and set dify:redis.host to a server or to an address that follows the primary",
        )


def _is_service(
    top: Section, release: Release, key: str, given: str, value: object, *, before: Container[str]
) -> bool:
    """Tell whether a name, in either spelling, is a service without settings `before`; report it otherwise."""
    known, service = selection.known(release.services), service_name(given)
    if service in before:
        top.problems.add(
            f"{key}.{given}",
            value,
            "is there twice, in two spellings of the service's name",
            f"keep {key}.{service}",
        )
        return False
    if service in known:
        return True
    top.problems.add(
        f"{key}.{given}",
        value,
        f"Dify {release.version} has no such service",
        hints.nearest(given, known),
    )
    return False


def _without_environment(release: Release, service: str) -> str:
    takers = ", ".join(sorted(selection.known(release.services) - selection.without_variables()))
    templates = " or shadow its template with dify:templatesDir" if service in selection.templated() else ""
    return f"use one of {takers}{templates}"


def _check_variables(top: Section, release: Release, key: str, given: Mapping[str, str]) -> None:
    """Report names that the service of this release does not read, and values that end its start.

    `key` is the service as the stack file spells it.
    """
    service = service_name(key)
    known = release.variables(service)
    if not known:
        return
    of_dify = {name: value for name, value in given.items() if not name.startswith(STAND_IN_PREFIX)}
    found = problems(known, of_dify, complete=service not in selection.partly_known())
    for name, words in found.items():
        where, version = f"extraEnv.{key}.{name}", release.version
        if name in known:
            top.problems.add(where, given[name], words, f"use a value that Dify {version} takes")
        elif checks.VARIABLE.fullmatch(name):
            top.problems.add(
                where, name, words, f"Dify {version} reads none of that name: correct or remove it"
            )
