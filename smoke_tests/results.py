"""The results of a run, by group, as plain data: JSON, the page and the summary are made of it."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from smoke_tests.advice import Advice

Outcome = Literal["passed", "failed", "not tested"]
PASSED: Outcome = "passed"
FAILED: Outcome = "failed"
NOT_TESTED: Outcome = "not tested"
FORMAT = 1
# The file of a test -> the group that it is reported in, in the order of the report.
GROUPS: Mapping[str, str] = MappingProxyType(
    {
        "target": "Reachability",
        "services": "Containers",
        "authentication": "Authentication",
        "limits": "Rate limits",
        "cors": "CORS",
        "browser": "CORS",
        "exposure": "Exposure",
        "edge": "Edge",
        "tls": "TLS",
        "console": "Console and gate",
        "gate": "Console and gate",
        "chat": "Chat",
        "parts": "Services behind api",
        "oauth": "OAuth",
        "llm": "LLM",
    }
)
OTHER = "Other"


def group_of(part: str) -> str:
    """Return the group of a test's file (without `test_`)."""
    return GROUPS.get(part, OTHER)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One test: its outcome, its time in seconds, and for a failure the message, the details and the advice."""

    name: str
    group: str
    outcome: Outcome
    seconds: float = 0.0
    message: str = ""
    detail: str = ""
    advice: Advice | None = None

    @property
    def test(self) -> str:
        """The name of the test's function."""
        return self.name.partition("[")[0]


@dataclass(frozen=True, kw_only=True)
class Untested:
    """Tests that did not run, of any group, for one reason."""

    reason: str
    tests: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Group:
    """The results of a group, and how many of its tests did not run."""

    name: str
    results: tuple[Result, ...]
    untested: int

    @property
    def outcome(self) -> Outcome:
        """Failed with one failure, passed with none, not tested without a result."""
        if any(one.outcome == FAILED for one in self.results):
            return FAILED
        return PASSED if any(one.outcome == PASSED for one in self.results) else NOT_TESTED

    @property
    def seconds(self) -> float:
        """The time of its tests in seconds."""
        return sum(one.seconds for one in self.results)

    def count(self, outcome: Outcome) -> int:
        """Return how many of its tests had this outcome."""
        return sum(one.outcome == outcome for one in self.results)


@dataclass(kw_only=True)
class Results:
    """The results of a run so far. `target` and `browser` are its title lines, times are seconds."""

    target: str = ""
    browser: str = ""
    started: float = field(default_factory=time.time)
    ended: float = 0.0
    cancelled: str = ""
    results: dict[str, Result] = field(default_factory=dict)
    left_out: list[Untested] = field(default_factory=list)

    def add(self, key: str, result: Result) -> None:
        """Add the outcome of a phase of a test (set-up, call, clean-up): the worst counts, times add up."""
        before = self.results.get(key)
        if before is None:
            self.results[key] = result
            return
        worst = before if before.outcome == FAILED or result.outcome == PASSED else result
        self.results[key] = replace(worst, seconds=before.seconds + result.seconds)

    def mask(self, redact: Callable[[str], str]) -> None:
        """Mask secrets in messages and details."""
        self.target, self.cancelled = redact(self.target), redact(self.cancelled)
        for key, one in self.results.items():
            self.results[key] = replace(one, message=redact(one.message), detail=redact(one.detail))

    @property
    def untested(self) -> list[Untested]:
        """What was not tested: left out before the run, and tests that found out that they cannot decide."""
        found: dict[str, list[tuple[str, str]]] = {}
        for one in self.left_out:
            found.setdefault(one.reason, []).extend(one.tests)
        for result in self.results.values():
            if result.outcome == NOT_TESTED:
                found.setdefault(result.message, []).append((result.group, result.name))
        return [Untested(reason=reason, tests=tuple(tests)) for reason, tests in found.items()]

    @property
    def groups(self) -> list[Group]:
        """Every group of the report, in its order; groups without any test too."""
        names = dict.fromkeys((*GROUPS.values(), *(one.group for one in self.results.values())))
        return [
            Group(
                name=name,
                results=tuple(
                    one for one in self.results.values() if one.group == name and one.outcome != NOT_TESTED
                ),
                untested=sum(group == name for one in self.untested for group, _ in one.tests),
            )
            for name in names
        ]

    def count(self, outcome: Outcome) -> int:
        """Return how many tests had this outcome, those left out included."""
        if outcome == NOT_TESTED:
            return sum(len(one.tests) for one in self.untested)
        return sum(one.outcome == outcome for one in self.results.values())

    @property
    def failures(self) -> Sequence[Result]:
        """The failed tests."""
        return [one for one in self.results.values() if one.outcome == FAILED]

    @property
    def findings(self) -> list[list[Result]]:
        """The failed tests; cases of one test with the same advice are together."""
        found: dict[tuple[str, str], list[Result]] = {}
        for one in self.failures:
            found.setdefault((one.test, str(one.advice)), []).append(one)
        return list(found.values())

    @property
    def outcome(self) -> Outcome:
        """Failed with a failure or when the run was cancelled, not tested without a result, else passed."""
        if self.failures or self.cancelled:
            return FAILED
        return PASSED if self.count(PASSED) else NOT_TESTED

    @property
    def summary(self) -> str:
        """The result of the run in a line."""
        failed, passed, left = (self.count(one) for one in (FAILED, PASSED, NOT_TESTED))
        rest = f", {_tests(left)} not run" if left else ""
        if self.cancelled:
            return f"Cancelled: {self.cancelled}; {failed} failed and {passed} passed before"
        if failed:
            return f"Failed: {failed} of {_tests(failed + passed)}{rest}"
        return f"Passed: all {_tests(passed)}{rest}" if passed else f"Nothing was tested{rest}"

    def as_json(self) -> dict[str, Any]:
        """Return the run as JSON data."""
        return {
            "format": FORMAT,
            "target": self.target,
            "browser": self.browser,
            "outcome": self.outcome,
            "summary": self.summary,
            "cancelled": self.cancelled,
            "started": round(self.started, 3),
            "seconds": round(self.ended - self.started, 3),
            "counts": {
                "passed": self.count(PASSED),
                "failed": self.count(FAILED),
                "notTested": self.count(NOT_TESTED),
            },
            "groups": [_group_json(group) for group in self.groups],
            "notTested": [
                {
                    "reason": one.reason,
                    "tests": [{"group": group, "name": name} for group, name in one.tests],
                }
                for one in self.untested
            ],
        }


def _group_json(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "outcome": group.outcome,
        "passed": group.count(PASSED),
        "failed": group.count(FAILED),
        "notTested": group.untested,
        "seconds": round(group.seconds, 3),
        "tests": [
            {
                "name": one.name,
                "outcome": one.outcome,
                "seconds": round(one.seconds, 3),
                **({"message": one.message} if one.message else {}),
                **(asdict(one.advice) if one.advice else {}),
            }
            for one in group.results
        ],
    }


def _tests(count: int) -> str:
    return f"{count} test{'' if count == 1 else 's'}"


def by_reason(reasons: Mapping[str, Iterable[tuple[str, str]]]) -> list[Untested]:
    """Return what was left out before the run, from reason -> (group, test)."""
    return [Untested(reason=reason, tests=tuple(tests)) for reason, tests in reasons.items()]
