"""One run of the smoke tests: its options, its target, its browser."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dify_kit.chromium import Browser
from smoke_tests.masking import Redactor
from smoke_tests.options import Options
from smoke_tests.results import Results
from smoke_tests.target import Target


@dataclass(kw_only=True)
class Run:
    """One smoke run: the target or why there is none, and the tests that were not selected."""

    options: Options
    redact: Redactor
    target: Target | None = None
    problem: str = ""
    browser: Browser | None = None
    no_browser: str = ""
    # JUnit, the page and JSON.
    reports: list[Path] = field(default_factory=list)
    results: Results = field(default_factory=Results)
    notes: list[str] = field(default_factory=list)

    @property
    def page(self) -> Path:
        """The report for people."""
        return self.reports[1]

    @property
    def data(self) -> list[Path]:
        """The reports for programs."""
        return [self.reports[2], *self.options.json]

    @property
    def title(self) -> str:
        """The target, in a line."""
        return self.target.title if self.target else f"nothing: {self.problem}"

    @property
    def view(self) -> str:
        """The browser, in a line."""
        return str(self.browser or f"none, so the browser tests are not selected: {self.no_browser}")


RUN = pytest.StashKey[Run]()
