"""The reports of a run: their folder, their names, and masking of secrets in them."""

import html
from collections.abc import Iterable
from pathlib import Path

import pytest

from smoke_tests.masking import Redactor


def choose_reports(config: pytest.Config, directory: Path, name: str) -> list[Path]:
    """Write JUnit and HTML reports for this run, unless options name other files; return their paths."""
    paths = []
    for option, suffix in (("xmlpath", "xml"), ("htmlpath", "html")):
        if not getattr(config.option, option, None):
            setattr(config.option, option, str(directory / f"smoke-{name}.{suffix}"))
        paths.append(Path(getattr(config.option, option)))
    # One file that can be mailed or archived.
    config.option.self_contained_html = True
    return paths


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


def note(count: int, why: str) -> str:
    """Return a line with the number of tests that were not selected, and the reason."""
    return f"{count} test{'' if count == 1 else 's'} not selected: {why}"


def html_lines(lines: Iterable[str]) -> list[str]:
    """Return paragraphs for the HTML report."""
    return [f"<p>{html.escape(line, quote=False)}</p>" for line in lines]
