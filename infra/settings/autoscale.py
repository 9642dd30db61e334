"""`dify:kubernetes.autoscale`: services of which the cluster chooses the number of pods, by their CPU."""

from collections.abc import Mapping
from dataclasses import dataclass

from infra.settings.reader import Section

MOST_PERCENT = 100


@dataclass(frozen=True, kw_only=True)
class Autoscale:
    """From ``least`` to ``most`` pods, so that each uses ``cpu_percent`` of its CPU limit on average."""

    least: int
    most: int
    cpu_percent: int


def read_autoscale(section: Section, replicas: Section, most: int) -> dict[str, Autoscale]:
    """Read the section: part -> range, of those that are on. `replicas` is the section that sets a fixed number."""
    found = {part: _read(section.part(part), replicas, part, most) for part in section.defaults}
    return {part: one for part, one in found.items() if one}


def _read(section: Section, replicas: Section, part: str, limit: int) -> Autoscale | None:
    add = section.problems.add
    least, most = section.integer("min", 1, limit), section.integer("max", 0, limit)
    percent = section.integer("cpuPercent", 1, MOST_PERCENT)
    if not most:
        for key in ("min", "cpuPercent"):
            if _changed(section, key):
                add(
                    section.key(key),
                    section.raw(key),
                    "has no effect without a max",
                    f"set {section.key('max')} to the most pods, or remove it",
                )
                break
        return None
    if least > most:
        add(section.key("min"), least, f"is more than {section.key('max')}, {most}", f"use {most} or less")
    if _changed(replicas, part):
        add(
            replicas.key(part),
            replicas.raw(part),
            f"the cluster chooses the number of pods, by {section.key('max')}",
            f"remove it and set {section.key('min')}; or set {section.key('max')} to 0",
        )
    return Autoscale(least=least, most=most, cpu_percent=percent)


def _changed(section: Section, key: str) -> bool:
    given: Mapping[str, object] = section.values
    return given.get(key) is not None and section.raw(key) != section.defaults.get(key)
