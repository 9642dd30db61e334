"""What is set for single services: variables (`dify:extraEnv`) and limits (`dify:resources`)."""

from collections.abc import Mapping
from dataclasses import dataclass

from infra.catalogue import checks, selection
from infra.catalogue import services as catalogue
from infra.catalogue.releases import Release
from infra.catalogue.variables import problems
from infra.settings.reader import Section
from infra.settings.secrets import SECRET_VARIABLES

MAX_MEMORY = 1024 * 1024
MAX_CPUS = 256.0
MIN_PIDS, MAX_PIDS = 64, 1_000_000
# The stand-in's own variables; nothing else reads them.
STAND_IN_PREFIX = "DIFY_STANDIN_"


@dataclass(frozen=True, kw_only=True)
class ServiceLimits:
    """Own limits of a service; None keeps the default. `memory` in MiB, `cpus` in cores, `pids` with threads."""

    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None


def read_extra_env(top: Section, release: Release) -> dict[str, dict[str, str]]:
    """Read `dify:extraEnv`: variables by service."""
    result: dict[str, dict[str, str]] = {}
    for service, variables in top.mapping("extraEnv").items():
        if not _is_service(top, release, "extraEnv", service, variables):
            continue
        if service in selection.without_variables():
            top.problems.add(
                f"extraEnv.{service}",
                variables,
                "this service reads no variables",
                _without_environment(release, service),
            )
            continue
        section = Section(
            top.problems, variables if isinstance(variables, dict) else {}, {}, f"extraEnv.{service}."
        )
        if not isinstance(variables, dict):
            top.problems.add(f"extraEnv.{service}", variables, "not an object", "use {NAME: value}")
        for name in section.values:
            if not checks.VARIABLE.fullmatch(name):
                top.problems.add(
                    section.key(name), name, "is not a variable's name", "use letters, digits and _"
                )
            if setting := SECRET_VARIABLES.get(name):
                top.problems.add_secret(
                    section.key(name), "comes from a setting", f"set dify:{setting} instead"
                )
        result[service] = {name: section.text(name) for name in section.values}
        _check_variables(top, release, service, result[service])
    return result


def read_resources(top: Section, release: Release) -> dict[str, ServiceLimits]:
    """Read `dify:resources`: limits by service."""
    result = {}
    for service, value in top.mapping("resources").items():
        if not _is_service(top, release, "resources", service, value):
            continue
        section = Section(
            top.problems,
            value if isinstance(value, dict) else {},
            {"memory": None, "cpus": None, "pids": None},
            f"resources.{service}.",
        )
        if not isinstance(value, dict):
            top.problems.add(
                f"resources.{service}",
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


def _is_service(top: Section, release: Release, key: str, service: str, value: object) -> bool:
    known = selection.known(release.services)
    if service in known:
        return True
    top.problems.add(
        f"{key}.{service}",
        value,
        f"Dify {release.version} has no such service",
        f"use one of {', '.join(sorted(known))}",
    )
    return False


def _without_environment(release: Release, service: str) -> str:
    takers = ", ".join(sorted(selection.known(release.services) - selection.without_variables()))
    templates = " or shadow its template with dify:templatesDir" if service in selection.templated() else ""
    return f"use one of {takers}{templates}"


def _check_variables(top: Section, release: Release, service: str, given: Mapping[str, str]) -> None:
    """Report names that the service of this release does not read, and values that end its start."""
    known = release.variables(service)
    if not known:
        return
    of_dify = {name: value for name, value in given.items() if not name.startswith(STAND_IN_PREFIX)}
    found = problems(known, of_dify, complete=service not in selection.partly_known())
    for name, words in found.items():
        key, version = f"extraEnv.{service}.{name}", release.version
        if name in known:
            top.problems.add(key, given[name], words, f"use a value that Dify {version} takes")
        elif checks.VARIABLE.fullmatch(name):
            top.problems.add(
                key, name, words, f"Dify {version} reads none of that name: correct or remove it"
            )
