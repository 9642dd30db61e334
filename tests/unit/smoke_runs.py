"""Runs the smoke tests against environments with defects, all in one process: starting Python costs most.

`python -m tests.unit.smoke_runs DIRECTORY DEFECT...` prints {defect: {code, output, results, refused, left}}.
`results` maps a test to its problem (empty: passed); `refused` counts 429s; `left` counts conversations.
"""

import contextlib
import io
import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from tests.unit.smoke_upstream import ALLOWED, serving

CHECKOUT = Path(__file__).resolve().parents[2]
RIGHT = "none"


def run(url: str, reports: Path, *more: str) -> tuple[int, str]:
    """Run the smoke tests; return exit code and output."""
    told = io.StringIO()
    arguments = [
        str(CHECKOUT / "smoke_tests"),
        *("-c", str(CHECKOUT / "pyproject.toml"), "-p", "no:cacheprovider", "-p", "no:hypothesispytest"),
        *("--capture", "sys", "--url", url, "--allowed-origin", ALLOWED),
        *("--reports", str(reports), "--patience", "20", *more),
    ]
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        code = pytest.main(arguments)
    return int(code), told.getvalue()


def read(report: Path) -> dict[str, str]:
    """Return test -> problem from a JUnit report; empty text for a test that passed."""
    found: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  # written by the run above
        problems = [one.get("message") or "?" for one in case if one.tag in {"failure", "error", "skipped"}]
        found[str(case.get("name"))] = "; ".join(problems)
    return found


def run_with(defect: str, reports: Path) -> dict[str, Any]:
    """Run the smoke tests against an environment with one defect."""
    with serving(defect) as upstream:
        code, output = run(upstream.url, reports)
        results = {name: text for report in reports.glob("*.xml") for name, text in read(report).items()}
        return {
            "code": code,
            "output": output,
            "results": results,
            "refused": upstream.refused,
            "left": len(upstream.conversations),
        }


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    outcomes = {defect: run_with(defect, directory / defect) for defect in sys.argv[2:]}
    json.dump(outcomes, sys.stdout)
