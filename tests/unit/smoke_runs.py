"""Runs the smoke tests against environments with defects, all in one process: starting Python costs most.

`python -m tests.unit.smoke_runs DIRECTORY DEFECT,DEFECT... [OPTION...]` prints an Outcome for each defect; the
options go to each run. `results` maps a test to its problem (empty: passed); `refused` counts 429s; `left`
counts conversations.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from tests.unit.smoke_gate_upstream import PREFIX as GATE_PREFIX
from tests.unit.smoke_gate_upstream import GateHandler
from tests.unit.smoke_llm_upstream import CALLER_KEY, MODELS, TOKEN_PREFIX, LlmHandler, TokenHandler
from tests.unit.smoke_llm_upstream import PREFIX as LLM_PREFIX
from tests.unit.smoke_oauth_upstream import CLIENT, PREFIX, SECRET, OAuthHandler
from tests.unit.smoke_parts_upstream import DATASET_KEY, NODES_KEY, PartsHandler
from tests.unit.smoke_parts_upstream import PREFIX as PARTS_PREFIX
from tests.unit.smoke_upstream import ALLOWED, KEY, Handler, serving

CHECKOUT = Path(__file__).resolve().parents[2]
RIGHT = "none"


def run(url: str, reports: Path, *more: str) -> tuple[int, str]:
    """Run the smoke tests, without a browser unless told otherwise; return exit code and output."""
    told = io.StringIO()
    arguments = [
        str(CHECKOUT / "smoke_tests"),
        *("-c", str(CHECKOUT / "pyproject.toml"), "-p", "no:cacheprovider", "-p", "no:hypothesispytest"),
        *("--capture", "sys", "--url", url, "--allowed-origin", ALLOWED),
        *("--reports", str(reports), "--patience", "20", "--browser", "none", *more),
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


def run_with(defect: str, reports: Path, *more: str) -> dict[str, Any]:
    """Run the smoke tests against an environment with one defect, or with several: `one+another`."""
    oauth = defect.startswith(PREFIX)
    options: tuple[str, ...] = (
        ("--oauth-client", CLIENT, "-k", "test_oauth or test_authentication") if oauth else ()
    )
    kind: type[Handler] = OAuthHandler if oauth else Handler
    if defect.startswith((LLM_PREFIX, TOKEN_PREFIX)):
        kind = LlmHandler
        options = (*(word for model in MODELS for word in ("--llm-model", model)), "-k", "test_llm")
    if defect.startswith(GATE_PREFIX):
        kind = GateHandler
        options = ("--gated", "-k", "test_gate or test_target or test_edge or test_console")
    if defect.startswith(PARTS_PREFIX):
        kind = PartsHandler
        options = ("-k", "test_parts", *_key_files(reports))
    if defect.startswith(TOKEN_PREFIX):
        kind = TokenHandler
        options = (*options, "--oauth-client", CLIENT)
    with serving(*defect.split("+"), kind=kind) as upstream:
        code, output = run(upstream.url, reports, *options, *more)
        results = {name: text for report in reports.glob("*.xml") for name, text in read(report).items()}
        return {
            "code": code,
            "output": output,
            "results": results,
            "refused": upstream.refused,
            "left": len(upstream.conversations),
        }


def _key_files(reports: Path) -> list[str]:
    """Return the options for the keys of the parts: files, as the environment would lend them to every run."""
    reports.mkdir(parents=True, exist_ok=True)
    options = []
    for name, key in (("nodes", NODES_KEY), ("dataset", DATASET_KEY)):
        file = reports / f"{name}-key"
        file.write_text(key, encoding="ascii")
        options += [f"--{name}-key-file", str(file)]
    return options


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A smoke run that ended."""

    code: int
    output: str
    results: Mapping[str, str]
    refused: int
    left: int

    @property
    def failed(self) -> list[str]:
        return sorted(name for name, problem in self.results.items() if problem)

    def differences(self, patterns: Sequence[str]) -> dict[str, list[str]]:
        """Return patterns that no failed test fits, and failed tests that fit none; empty lists are right."""
        return {
            "missed": [one for one in patterns if not any(fnmatch(name, one) for name in self.failed)],
            "unexpected": [name for name in self.failed if not any(fnmatch(name, one) for one in patterns)],
        }


def outcomes(directory: Path, defects: Sequence[str], *options: str, seconds: float) -> Mapping[str, Outcome]:
    """Run the smoke tests once for each defect, in a process of their own without this one's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DIFY_", "PULUMI_"))}
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.smoke_runs", str(directory), ",".join(defects), *options],
        cwd=CHECKOUT,
        # With --url nothing may need Docker.
        env=kept
        | {
            "DIFY_API_KEY": KEY,
            "DIFY_OAUTH_CLIENT_SECRET": SECRET,
            "DIFY_LLM_KEY": CALLER_KEY,
            "DOCKER_HOST": "tcp://127.0.0.1:1",
            "NO_COLOR": "1",
        },
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return {defect: Outcome(**found) for defect, found in json.loads(done.stdout).items()}


if __name__ == "__main__":
    place, named, *rest = sys.argv[1:]
    found = {defect: run_with(defect, Path(place) / defect, *rest) for defect in named.split(",")}
    json.dump(found, sys.stdout)
