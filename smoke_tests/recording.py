"""The part of pytest that records the results of a run and writes its reports."""

from collections.abc import Sequence
from typing import Any

import pytest

from smoke_tests.reporting import advise, mask_report, result_of, write_reports
from smoke_tests.results import FAILED, NOT_TESTED, Untested, group_of
from smoke_tests.run import Run
from smoke_tests.selection import part_of

# The run ended before these tests, by -x or because nothing answers.
STOPPED = "the run ended before them"


class Recorder:
    """A plugin: one for each run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._items: Sequence[pytest.Item] = ()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Any:  # noqa: ANN401  # pytest's hook protocol
        """Mask secrets in a report, and add what a failure means."""
        report = yield
        mask_report(report, self._run.redact)
        advise(item, report)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record the result of a phase of a test."""
        self._run.results.add(report.nodeid, result_of(report))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Remember what was selected."""
        self._items = tuple(session.items)

    def pytest_keyboard_interrupt(self) -> None:
        """Record that the run was cancelled, by a person or at its deadline."""
        self._run.results.cancelled = "it received an interrupt, at its deadline or by a person"

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Any:  # noqa: ANN401  # pytest's hook protocol
        """Write the reports after everything was cleaned up, also when that fails."""
        try:
            return (yield)
        finally:
            self._write(session)

    def _write(self, session: pytest.Session) -> None:
        if session.config.option.collectonly or not self._run.reports:
            return
        results = self._run.results
        missing = [item for item in self._items if item.nodeid not in results.results]
        if missing:
            tests = tuple((group_of(part_of(item)), item.name) for item in missing)
            results.left_out.append(Untested(reason=STOPPED, tests=tests))
        results.target, results.browser = self._run.title, self._run.view
        write_reports(results, self._run.page, self._run.data, self._run.redact)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:  # noqa: ANN401  # private type
        """Print each failure in a sentence, what was not tested, and the summary."""
        results = self._run.results
        for first, *more in results.findings:
            name = f"{first.test} ({len(more) + 1} cases)" if more else first.name
            terminalreporter.write_line(f"{first.group}: {name}: {first.advice}", red=True)
        for line in self._run.notes:
            terminalreporter.write_line(line)
        for result in results.results.values():
            if result.outcome == NOT_TESTED:
                terminalreporter.write_line(f"not tested: {result.name}: {result.message}")
        terminalreporter.write_line("reports: " + " ".join(str(path) for path in self._run.reports))
        failed = results.outcome == FAILED
        terminalreporter.write_line(results.summary, bold=True, red=failed, green=not failed)
