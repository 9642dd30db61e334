"""What a platform shows of a stack besides its containers: numbers of pods, Events, and objects for a bundle."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How many pods a service is to have, and how many of them are ready.

    ``workload`` is the kind and name of what makes them (`Deployment api`), ``resource`` its id in Pulumi's state,
    ``image`` that of its template. ``trouble`` says why pods are missing; empty where none is, or where they start.
    """

    workload: str
    resource: str
    wanted: int
    ready: int
    job: bool = False
    image: str = ""
    trouble: str = ""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """What the platform reports about a service: an Event. ``time`` is RFC 3339 in UTC."""

    time: str
    service: str
    pod: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the platform shows of its objects, for a bundle: the path of a file, what it is, and its content.

    Values of environments are in ``content`` as they are.
    """

    path: str
    what: str
    content: Any
