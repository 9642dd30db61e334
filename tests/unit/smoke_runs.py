"""Runs the smoke tests against environments with defects, all in one process: starting Python costs most.

`python -m tests.unit.smoke_runs DIRECTORY ENVIRONMENT DEFECT,DEFECT... [OPTION...]` prints an Outcome for each
defect; the options go to each run.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from tests.unit.smoke_gate_upstream import GateHandler
from tests.unit.smoke_llm_upstream import CALLER_KEY, MODELS, LlmHandler, TokenHandler
from tests.unit.smoke_oauth_upstream import CLIENT, SECRET, OAuthHandler
from tests.unit.smoke_parts_upstream import DATASET_KEY, NODES_KEY, PartsHandler
from tests.unit.smoke_upstream import ALLOWED, KEY, Handler, serving

CHECKOUT = Path(__file__).resolve().parents[2]
NO_DEFECT = "none"
# A run that a busy machine left undecided is repeated: so often, then it counts as it is.
RUNS = 3
UNDECIDED = "this machine is too busy"
LLM_OPTIONS = (*(word for model in MODELS for word in ("--llm-model", model)), "-k", "test_llm")


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What serves the requests of a run, and the options that select its tests."""

    handler: type[Handler]
    options: tuple[str, ...] = ()
    # Option -> key: each is written to a file for every run, as an operator would lend it.
    key_files: Mapping[str, str] = field(default_factory=dict)


ENVIRONMENTS: Mapping[str, Environment] = {
    "dify": Environment(handler=Handler),
    "gate": Environment(
        handler=GateHandler,
        options=("--gated", "-k", "test_gate or test_target or test_edge or test_console"),
    ),
    "oauth": Environment(
        handler=OAuthHandler,
        options=("--oauth-client", CLIENT, "-k", "test_oauth or test_authentication"),
    ),
    "llm": Environment(handler=LlmHandler, options=LLM_OPTIONS),
    "llm-tokens": Environment(handler=TokenHandler, options=(*LLM_OPTIONS, "--oauth-client", CLIENT)),
    "parts": Environment(
        handler=PartsHandler,
        options=("-k", "test_parts"),
        key_files={"--nodes-key-file": NODES_KEY, "--dataset-key-file": DATASET_KEY},
    ),
}


def run(url: str, reports: Path, *more: str) -> tuple[int, str]:
    """Run the smoke tests, without a browser unless `more` chooses one; return exit code and output."""
    printed = io.StringIO()
    arguments = [
        str(CHECKOUT / "smoke_tests"),
        *("-c", str(CHECKOUT / "pyproject.toml"), "-p", "no:cacheprovider", "-p", "no:hypothesispytest"),
        *("--capture", "sys", "--url", url, "--allowed-origin", ALLOWED),
        *("--reports", str(reports), "--patience", "20", "--browser", "none", *more),
    ]
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = pytest.main(arguments)
    return int(code), printed.getvalue()


def read(report: Path) -> dict[str, str]:
    """Return test -> problem from a JUnit report; empty text for a test that passed."""
    found: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  # written by the run above
        problems = [one.get("message") or "?" for one in case if one.tag in {"failure", "error", "skipped"}]
        found[str(case.get("name"))] = "; ".join(problems)
    return found


def run_with(environment: Environment, defect: str, reports: Path, *more: str) -> dict[str, Any]:
    """Run the smoke tests against an environment with one defect, or with several: `one+another`."""
    reports.mkdir(parents=True, exist_ok=True)
    options = list(environment.options)
    for option, key in environment.key_files.items():
        file = reports / option.lstrip("-")
        file.write_text(key, encoding="ascii")
        options += [option, str(file)]
    with serving(*defect.split("+"), kind=environment.handler) as upstream:
        code, output = run(upstream.url, reports, *options, *more)
        results = {name: text for report in reports.glob("*.xml") for name, text in read(report).items()}
        return {
            "code": code,
            "output": output,
            "results": results,
            "refused": upstream.refused,
            "left": len(upstream.conversations),
        }


def run_until_decided(environment: Environment, defect: str, directory: Path, *more: str) -> dict[str, Any]:
    """Run the smoke tests with a defect, again where this machine was too busy to time a stream."""
    found: dict[str, Any] = {}
    for attempt in range(RUNS):
        found = run_with(environment, defect, directory / str(attempt), *more)
        if not any(UNDECIDED in problem for problem in found["results"].values()):
            break
    return found


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A smoke run that ended: `results` maps a test to its problem, empty when it passed.

    `refused` counts answers with 429, `left` the conversations or knowledge bases that still exist.
    """

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


def outcomes(
    directory: Path, environment: str, defects: Sequence[str], *options: str, seconds: float
) -> Mapping[str, Outcome]:
    """Run the smoke tests once for each defect, in a process of their own without this one's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DIFY_", "PULUMI_"))}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.unit.smoke_runs",
            str(directory),
            environment,
            ",".join(defects),
            *options,
        ],
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
    place, kind, names, *rest = sys.argv[1:]
    ended = {
        name: run_until_decided(ENVIRONMENTS[kind], name, Path(place) / name, *rest)
        for name in names.split(",")
    }
    json.dump(ended, sys.stdout)
