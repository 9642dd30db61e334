"""`dify:kubernetes.autoscale`: services of which the cluster chooses the number of pods, by CPU or by waiting jobs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from infra.settings.reader import Section

MOST_PERCENT = 100
MOST_JOBS = 100_000
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Autoscale:
    """From ``least`` to ``most`` pods, so that each uses ``cpu_percent`` of its CPU limit on average.

    With ``jobs`` so many jobs wait for each of them instead, and ``keda_namespace`` is where KEDA runs.
    """

    least: int
    most: int
    cpu_percent: int
    jobs: int = 0
    keda_namespace: str = ""


def read_autoscale(section: Section, replicas: Section, most: int) -> dict[str, Autoscale]:
    """Read the section: part -> range, of those that are on. `replicas` is the section that sets a fixed number."""
    found = {part: _read(section.part(part), replicas, part, most) for part in section.defaults}
    return {part: one for part, one in found.items() if one}


def _read(section: Section, replicas: Section, part: str, limit: int) -> Autoscale | None:
    add = section.problems.add
    least, most = section.integer("min", 1, limit), section.integer("max", 0, limit)
    percent = section.integer("cpuPercent", 1, MOST_PERCENT)
    # Workers alone have queues.
    queued = "jobsPerPod" in section.defaults
    jobs = section.integer("jobsPerPod", 0, MOST_JOBS) if queued else 0
    keda = _keda(section) if queued else ""
    if not most:
        for key in ("min", "cpuPercent", "jobsPerPod"):
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
    if jobs and _changed(section, "cpuPercent"):
        add(
            section.key("cpuPercent"),
            section.raw("cpuPercent"),
            f"has no effect with {section.key('jobsPerPod')}, {jobs}",
            f"remove it, or set {section.key('jobsPerPod')} to 0",
        )
    return Autoscale(least=least, most=most, cpu_percent=percent, jobs=jobs, keda_namespace=keda)


def _keda(section: Section) -> str:
    name = section.text("kedaNamespace")
    if not _NAMESPACE.fullmatch(name):
        section.problems.add(
            section.key("kedaNamespace"),
            name,
            "is not the name of a namespace",
            "name the one with the pods of KEDA's operator, by `kubectl get pods --all-namespaces`",
        )
    return name


def _changed(section: Section, key: str) -> bool:
    given: Mapping[str, object] = section.values
    return given.get(key) is not None and section.raw(key) != section.defaults.get(key)
