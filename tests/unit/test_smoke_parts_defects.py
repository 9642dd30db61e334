"""Each smoke test of a service behind api detects that it is down, or runs and does not work."""

from collections.abc import Mapping

import pytest

from smoke_tests.engine import Engine
from smoke_tests.target import Deployment, from_exports
from smoke_tests.test_parts import test_plugin_daemon_answers_api as asks_daemon
from tests.unit.smoke_defects import Failures, PlantedDefects, fails
from tests.unit.smoke_parts_upstream import DATASET_KEY, NODES_KEY
from tests.unit.test_smoke_target import EXPORTS, chosen

SANDBOX = "test_code_runs_in_the_sandbox"
ALLOWS = "test_squid_allows_difys_own_files"
REFUSES = "test_squid_refuses_private_addresses"
INDEXED = "test_a_document_is_indexed_and_found"
DAEMON = "test_plugin_daemon_looks_endpoints_up"

DEFECTS: Mapping[str, Failures] = {
    "sandbox-dead": fails(SANDBOX, message="sandbox: result .* expected: .* is likely a network issue"),
    "sandbox-refuses": fails(SANDBOX, message="sandbox: result .* expected: .*operation not permitted"),
    "sandbox-makes-up": fails(SANDBOX, message="sandbox: result .* expected: .*42"),
    "squid-dead": fails(ALLOWS, f"{REFUSES}[[]*", message="ssrf-proxy: .*Reached maximum retries"),
    "squid-closed": fails(ALLOWS, message="ssrf-proxy: squid refuses Dify's own files"),
    "squid-without-dns": fails(ALLOWS, message="ssrf-proxy: squid returned no answer of api: status 503"),
    "squid-open": fails(f"{REFUSES}[[]*", message="ssrf-proxy: squid must refuse api: status 200"),
    "squid-open-to-a-403": fails(
        f"{REFUSES}[[]private]", message="ssrf-proxy: squid must refuse api: status 403"
    ),
    "older-dify": fails(),
    "worker-dead": fails(INDEXED, message="worker: the document is not indexed after 2 s .*'waiting'"),
    "worker-fails": fails(INDEXED, message="worker: indexing ended with error: no space left"),
    "finds-nothing": fails(INDEXED, message=r"the indexed document is not among the results \[\]"),
    "finds-another": fails(INDEXED, message="the indexed document is not among the results .*something else"),
    "retrieval-fails": fails(INDEXED, message="the knowledge API refuses the request: .* 500"),
    "daemon-without-database": fails(DAEMON, message="plugin-daemon: it cannot look up an endpoint: .* 500"),
    "daemon-dead": fails(DAEMON, message="plugin-daemon: it cannot look up an endpoint: .* 502"),
    "no-plugin-route": fails(DAEMON, message="plugin-daemon: it cannot look up an endpoint: .* 404"),
}


class TestParts(PlantedDefects):
    """Dify with everything behind it."""

    # What api itself asks the plugin daemon shows from inside only.
    environment, defects, tests = "parts", DEFECTS, 6
    options = ("--indexing", "2")
    secrets = (NODES_KEY, DATASET_KEY)


class InApi(Engine):
    """An engine that runs nothing: a command in a container ends with a given code and output."""

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
    ("code", "output", "message"),
    [
        pytest.param(7, "curl: (7) Failed to connect\n000", "cannot reach it: .*Failed", id="dead"),
        pytest.param(
            0, '{"code":-401,"message":"unauthorized"}\n401', "refuses api's request: 401", id="wrong-key"
        ),
        pytest.param(
            0,
            '{"code":-500,"message":"no database"}\n200',
            "refuses api's request: 200 .*-500",
            id="no-database",
        ),
        pytest.param(0, "<html>\n200", "refuses api's request: 200 <html>", id="another-server"),
    ],
)
def test_a_plugin_daemon_that_cannot_answer_api_is_noticed(code: int, output: str, message: str) -> None:
    with pytest.raises(AssertionError, match=f"plugin-daemon: .*{message}"):
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
