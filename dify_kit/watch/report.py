"""What `dify-kit status` found, as data: the document of `--json`, and what the screen shows."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A problem, and what to do about it."""

    what: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class Pod:
    """A pod of a service on a cluster. `exit_code` and `reason` are those of the last end, or say why it waits."""

    name: str
    state: str
    health: str
    restarts: int
    exit_code: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Service:
    """A service of the stack: its container, or one that is missing (`state` is `missing`), or its pods together.

    `memory` and `memory_limit` are bytes; 0 is none, or unknown. `problem` is empty for one that is as it should be.
    `ready` of `wanted` replicas are ready; 0 of 0 for a job. `last_warning` is the newest Event of a cluster about it.
    """

    service: str
    container: str
    job: bool
    state: str
    health: str = ""
    exit_code: int = 0
    restarts: int = 0
    image: str = ""
    memory: int = 0
    memory_limit: int = 0
    wanted: int = 0
    ready: int = 0
    pods: tuple[Pod, ...] = ()
    last_warning: str = ""
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The certificate that the edge presents; `source` is `dify:tls.mode`."""

    source: str
    subject: str
    issuer: str
    ends: datetime
    days_left: int


@dataclass(frozen=True, kw_only=True)
class Address:
    """The stack's public URL, and whether the edge answers at the published address.

    `answers` is None where this machine cannot ask: the engine is on another one.
    """

    url: str
    published: str = ""
    answers: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Revision:
    """A live configuration: the revision of the exports, and those that the service names, with commas, or nothing."""

    deployed: str
    running: str

    @property
    def same(self) -> bool:
        """Whether all that runs is the deployed one. nginx adds the address of a service to the name."""
        return all(
            one == self.deployed or one.startswith(f"{self.deployed}-") for one in self.running.split(",")
        )


@dataclass(frozen=True, kw_only=True)
class LastUpdate:
    """The last deployment in Pulumi's history."""

    result: str
    ended: datetime | None
    changes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Requests that ended: all, with a 4xx (`too_many` 429 and `closed` 499 are among them), with a 5xx."""

    requests: int
    client_errors: int
    too_many: int
    closed: int
    server_errors: int


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Requests at the edge: in the last `seconds`, and since nginx started. Of several replicas: their sums."""

    since: datetime
    seconds: int
    recent: Rates
    total: Rates


@dataclass(kw_only=True)
class Status:
    """A stack at this moment. Names are those of the exports; `under_way` is the Pulumi command that runs, if any."""

    stack: str
    kit: str
    deployed: bool = False
    deployed_by: str = ""
    release: str = ""
    images: str = ""
    stand_in: bool = False
    under_way: str = ""
    address: Address | None = None
    certificate: Certificate | None = None
    services: list[Service] = field(default_factory=list)
    revisions: dict[str, Revision] = field(default_factory=dict)
    limits: dict[str, str] = field(default_factory=dict)
    last_update: LastUpdate | None = None
    # Of `dify-kit backup` on this machine.
    last_backup: datetime | None = None
    # Upstream of the LLM proxy -> status -> failures of this month; None where the proxy is off or does not answer.
    upstreams: dict[str, dict[str, int]] | None = None
    # None where nginx does not answer, or has a configuration that does not count.
    traffic: Traffic | None = None
    # Container or pod of nginx -> its metrics as text. No part of the document.
    scraped: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def add(self, what: str, hint: str = "") -> None:
        """Add a problem, once."""
        if (problem := Problem(what=what, hint=hint)) not in self.problems:
            self.problems.append(problem)

    def document(self) -> dict[str, Any]:
        """Return the status in types of JSON; times are ISO 8601 in UTC."""
        found: dict[str, Any] = plain({"ok": self.ok, **asdict(self)})
        del found["scraped"]
        for name, revision in self.revisions.items():
            found["revisions"][name]["same"] = revision.same
        return found


def plain(value: Any) -> Any:  # noqa: ANN401  # any value of JSON
    """Return a value with times as texts, and names of members as JSON has them (`daysLeft`)."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {_camel(str(key)): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest) if name.isidentifier() else name
