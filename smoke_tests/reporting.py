"""The reports of a run: JUnit, JSON and one page, with every known secret masked."""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import pytest

from smoke_tests.advice import advice_for
from smoke_tests.masking import Redactor
from smoke_tests.results import FAILED, NOT_TESTED, PASSED, Outcome, Result, Results, group_of

PAGE = "report.html.j2"
OUTCOMES: Mapping[str, Outcome] = {"passed": PASSED, "failed": FAILED, "skipped": NOT_TESTED}
ADVICE = "what is wrong, and what to do"
# The first lines of a message; the details have the rest.
SHOWN = 1000


def choose_reports(config: pytest.Config, directory: Path, name: str) -> list[Path]:
    """Return the paths of this run's reports; an option of pytest may name another file for JUnit."""
    if not getattr(config.option, "xmlpath", None):
        config.option.xmlpath = str(directory / f"smoke-{name}.xml")
    return [
        Path(config.option.xmlpath),
        *(directory / f"smoke-{name}.{suffix}" for suffix in ("html", "json")),
    ]


def mask_report(report: pytest.TestReport, redact: Redactor) -> None:
    """Mask known secrets in a test's traceback and captured output.

    Tests hold secrets in objects that mask them. This covers libraries, which may log or raise with a secret.
    """
    if report.longrepr is not None and redact.finds(str(report.longrepr)):
        report.longrepr = redact(str(report.longrepr))
    report.sections = [(name, redact(content)) for name, content in report.sections]
    report.user_properties = [
        (redact(str(name)), redact(str(value))) for name, value in report.user_properties
    ]


def message_of(report: pytest.TestReport) -> str:
    """Return what a failed test says, or why a test left itself out; empty for one that passed."""
    if report.skipped and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    if not report.failed:
        return ""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        return str(crash.message)[:SHOWN]
    lines = str(report.longrepr).strip().splitlines()
    marked = [line.removeprefix("E ").strip() for line in lines if line.startswith("E ")]
    return "\n".join(marked or lines[-3:])[:SHOWN]


def result_of(report: pytest.TestReport) -> Result:
    """Return the result of one phase of a test. The report is masked by now."""
    message = message_of(report)
    file, _, name = report.nodeid.rpartition("::")
    return Result(
        name=name,
        group=group_of(Path(file.partition("::")[0]).stem.removeprefix("test_")),
        outcome=OUTCOMES[report.outcome],
        seconds=report.duration,
        message=message,
        detail=_detail(report) if report.failed else "",
        advice=advice_for(name, message) if report.failed else None,
    )


def _detail(report: pytest.TestReport) -> str:
    captured = [f"{name}\n{content}" for name, content in report.sections if name != ADVICE]
    return "\n\n".join([str(report.longrepr), *captured])


def advise(item: pytest.Item, report: pytest.TestReport) -> None:
    """Add the advice to a failed test: below its traceback, and as a property in JUnit."""
    if report.failed:
        sentence = str(advice_for(item.name, message_of(report)))
        report.sections.append((ADVICE, sentence))
        item.user_properties.append(("advice", sentence))


def write_reports(results: Results, page: Path, data: Sequence[Path], redact: Redactor) -> None:
    """Write the page and the JSON of a finished run."""
    results.ended = time.time()
    # Some secrets were learned after the first reports were made.
    results.mask(redact)
    text = as_text(results.as_json())
    for path, content in ((page, as_page(results)), *((one, text) for one in data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(redact(content), encoding="utf-8")


def as_text(found: Mapping[str, Any]) -> str:
    """Return JSON as it is written to a file."""
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def as_page(results: Results) -> str:
    """Return the page for people: one file without further ones."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(PAGE).render(
        run=results,
        passed=PASSED,
        failed=FAILED,
        not_tested=NOT_TESTED,
        started=datetime.fromtimestamp(results.started, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    )


def note(count: int, why: str) -> str:
    """Return a line with the number of tests that were not selected, and the reason."""
    return f"{count} test{'' if count == 1 else 's'} not selected: {why}"
