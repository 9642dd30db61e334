"""Plants defects in a small Dify and checks that exactly the smoke tests of each defect fail.

A test module names an environment of `smoke_runs.ENVIRONMENTS` and a table of defects in a subclass of
`PlantedDefects`. A defect is a name that the environment's handler knows (`Handler.wrong`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest

from tests.unit.smoke_runs import NO_DEFECT, Outcome, outcomes


@dataclass(frozen=True)
class Failures:
    """The tests that a defect fails, as fnmatch patterns ("[" is escaped as "[[]"), and what they have to report."""

    tests: tuple[str, ...]
    message: str = ""


def fails(*tests: str, message: str = "") -> Failures:
    """Return a row: these tests fail and no other; `message` is a regular expression found in their messages."""
    return Failures(tests, message)


class PlantedDefects:
    """The tests of one environment. `runs` holds an outcome for each defect and one for none."""

    environment: ClassVar[str]
    defects: ClassVar[Mapping[str, Failures]]
    # How many smoke tests run at least: none is lost by a marker or by -k.
    tests: ClassVar[int]
    options: ClassVar[tuple[str, ...]] = ()
    # What no run may print.
    secrets: ClassVar[tuple[str, ...]] = ()
    # The defects that leave conversations or knowledge bases behind.
    leaving: ClassVar[tuple[str, ...]] = ()
    # The name of the run that passes: no defect, or one that every test has to cope with.
    right: ClassVar[str] = NO_DEFECT
    # More runs, for tests that a subclass adds.
    more: ClassVar[tuple[str, ...]] = ()
    seconds: ClassVar[float] = 1200

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make one test for each defect."""
        if "defect" in metafunc.fixturenames:
            metafunc.parametrize("defect", self.defects)

    @pytest.fixture(scope="class")
    @classmethod
    def runs(cls, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
        """The runs of all defects, in one process."""
        every = dict.fromkeys((cls.right, *cls.defects, *cls.more))
        directory = tmp_path_factory.mktemp("runs")
        return outcomes(directory, cls.environment, list(every), *cls.options, seconds=cls.seconds)

    def test_a_right_environment_passes(self, runs: Mapping[str, Outcome]) -> None:
        outcome = runs[self.right]

        assert (outcome.code, outcome.failed) == (0, []), outcome.output[-4000:]
        assert len(outcome.results) >= self.tests, sorted(outcome.results)
        assert outcome.left == 0, "conversations or knowledge bases left behind"

    def test_a_defect_fails_its_tests(self, runs: Mapping[str, Outcome], defect: str) -> None:
        outcome, expected = runs[defect], self.defects[defect]

        assert outcome.code == (1 if expected.tests else 0), outcome.output[-4000:]
        assert outcome.differences(expected.tests) == {"missed": [], "unexpected": []}, outcome.output[-4000:]
        messages = " ".join(outcome.results[name] for name in outcome.failed)
        assert re.search(expected.message, messages, re.DOTALL), messages
        assert (outcome.left > 0) == (defect in self.leaving), "conversations or knowledge bases left behind"
        assert [secret for secret in self.secrets if secret in outcome.output] == []
