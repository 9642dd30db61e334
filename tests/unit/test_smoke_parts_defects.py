"""Each smoke test of a service behind api notices that it is dead, or lives and cannot work."""

import re
from collections.abc import Mapping

import pytest

from smoke_tests.engine import Engine
from smoke_tests.target import Deployment, from_exports
from smoke_tests.test_parts import test_plugin_daemon_answers_api as asks_daemon
from tests.unit.smoke_parts_upstream import DATASET_KEY, NODES_KEY, PREFIX, RIGHT
from tests.unit.smoke_runs import Outcome, outcomes
from tests.unit.test_smoke_target import EXPORTS, chosen

RUNS_SECONDS = 300
SANDBOX = "test_code_runs_in_the_sandbox"
ALLOWS = "test_squid_lets_through_what_it_has_to"
REFUSES = "test_squid_refuses_what_lies_inside"
INDEXED = "test_a_document_is_indexed_and_found"
DAEMON = "test_plugin_daemon_looks_endpoints_up"

# Defect -> the tests that have to fail, all of them and no other, and what they say. [ is escaped in patterns.
DEFECTS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "sandbox-dead": ((SANDBOX,), "sandbox: it did not compute .* is likely a network issue"),
    "sandbox-refuses": ((SANDBOX,), "sandbox: it did not compute .*operation not permitted"),
    "sandbox-makes-up": ((SANDBOX,), "sandbox: it did not compute .*42"),
    "squid-dead": ((ALLOWS, f"{REFUSES}[[]*"), "ssrf_proxy: .*Reached maximum retries"),
    "squid-closed": ((ALLOWS,), "ssrf_proxy: squid refuses Dify's own files"),
    "squid-without-dns": ((ALLOWS,), "ssrf_proxy: no answer of api came through squid: status 503"),
    "squid-open": ((f"{REFUSES}[[]*",), "ssrf_proxy: squid did not refuse api: status 200"),
    "squid-open-to-a-403": ((f"{REFUSES}[[]private]",), "ssrf_proxy: squid did not refuse api: status 403"),
    "older-dify": ((), ""),
    "worker-dead": ((INDEXED,), "worker: the document is not indexed after 2 s .*'waiting'"),
    "worker-fails": ((INDEXED,), "worker: it gave the document up: error: no space left"),
    "finds-nothing": ((INDEXED,), r"the indexed document is not found: \[\]"),
    "finds-another": ((INDEXED,), "the indexed document is not found: .*something else"),
    "retrieval-fails": ((INDEXED,), "the knowledge API refuses: .* 500"),
    "daemon-without-database": ((DAEMON,), "plugin_daemon: it cannot look an endpoint up: .* 500"),
    "daemon-dead": ((DAEMON,), "plugin_daemon: it cannot look an endpoint up: .* 502"),
    "no-plugin-route": ((DAEMON,), "plugin_daemon: it cannot look an endpoint up: .* 404"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Outcome]:
    """The runs of all defects."""
    every = [RIGHT, *(f"{PREFIX}{defect}" for defect in DEFECTS)]
    return outcomes(tmp_path_factory.mktemp("runs"), every, "--indexing", "2", seconds=RUNS_SECONDS)


def test_a_right_environment_passes(runs: Mapping[str, Outcome]) -> None:
    outcome = runs[RIGHT]

    assert outcome.code == 0, outcome.output[-4000:]
    # What api itself asks the plugin daemon shows from inside only.
    assert len(outcome.results) == 6
    assert outcome.left == 0, "knowledge bases left behind"


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_noticed_by_its_tests(runs: Mapping[str, Outcome], defect: str) -> None:
    outcome, (patterns, told) = runs[f"{PREFIX}{defect}"], DEFECTS[defect]

    assert outcome.code == (1 if patterns else 0), outcome.output[-4000:]
    assert outcome.differences(patterns) == {"missed": [], "unexpected": []}, outcome.output[-4000:]
    assert outcome.left == 0, "knowledge bases left behind"
    assert NODES_KEY not in outcome.output
    assert DATASET_KEY not in outcome.output
    if patterns:
        said = " ".join(outcome.results[name] for name in outcome.failed)
        assert re.search(told, said, re.DOTALL), said


class InApi(Engine):
    """An engine that runs nothing: a command in a container ends as it is told to."""

    def __init__(self, code: int, output: str) -> None:
        self._ends = code, output

    def run(self, name: str, command: list[str]) -> tuple[int, str]:
        assert name == "dify-dev-api"
        assert "X-Api-Key" in command[-1]
        return self._ends


def deployment() -> Deployment:
    found = from_exports(EXPORTS, chosen()).deployment
    assert found
    return found


def test_a_plugin_daemon_that_answers_api_passes() -> None:
    asks_daemon(InApi(0, '{"code":0,"message":"success","data":{"list":[],"total":0}}\n200'), deployment())


@pytest.mark.parametrize(
    ("code", "output", "told"),
    [
        pytest.param(7, "curl: (7) Failed to connect\n000", "does not reach it: .*Failed", id="dead"),
        pytest.param(0, '{"code":-401,"message":"unauthorized"}\n401', "answer api: 401", id="wrong-key"),
        pytest.param(
            0, '{"code":-500,"message":"no database"}\n200', "answer api: 200 .*-500", id="no-database"
        ),
        pytest.param(0, "<html>\n200", "answer api: 200 <html>", id="another-server"),
    ],
)
def test_a_plugin_daemon_that_cannot_answer_api_is_noticed(code: int, output: str, told: str) -> None:
    with pytest.raises(AssertionError, match=f"plugin_daemon: .*{told}"):
        asks_daemon(InApi(code, output), deployment())


@pytest.mark.parametrize(
    ("allowed", "hosts", "opened"),
    [
        ([], ["api", "172.18.0.5"], ""),
        (["172.18.0.0/16"], ["api", "172.18.0.5"], "172.18.0.0/16"),
        (["10.0.0.0/8"], ["api", "172.18.0.5"], ""),
        (["api"], ["api"], "api"),
        ([".internal"], ["wiki.internal"], ".internal"),
        (["wiki.internal"], ["api"], ""),
        (["169.254.0.0/16"], ["169.254.169.254"], "169.254.0.0/16"),
        (["fd00::/8"], ["172.18.0.5"], ""),
    ],
)
def test_what_squid_may_let_through_is_known(allowed: list[str], hosts: list[str], opened: str) -> None:
    found = from_exports(EXPORTS | {"ssrfAllowPrivate": allowed}, chosen()).deployment

    assert found
    assert found.opened_by(hosts) == opened
