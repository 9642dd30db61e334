"""The services behind api work. Their health checks can succeed even when they do not."""

import json
import secrets
import uuid

import pytest

from smoke_tests.client import Client, VisitError
from smoke_tests.inside import Inside
from smoke_tests.knowledge import Knowledge
from smoke_tests.nodes import Nodes, Ran
from smoke_tests.target import Deployment, Target

# The addresses that squid must refuse, by the node that requests them.
INSIDE = {"private": "api", "metadata": "169.254.169.254"}
PROBES = [
    pytest.param(probe, marks=pytest.mark.needs_refusal(host), id=probe) for probe, host in INSIDE.items()
]
# The request of api, with api's address and key of the daemon; the process list does not show the key.
ASK_DAEMON = (
    "printf 'X-Api-Key: %s' \"$PLUGIN_DAEMON_KEY\" | curl -sS -H @- --max-time 15 -w '\\n%{http_code}' "
    '"${PLUGIN_DAEMON_URL%/}/plugin/WORKSPACE/management/list?page=1&page_size=1"'
)


def ran(nodes: Nodes, part: str, probe: str, text: str = "") -> Ran:
    """Run a node; a failure names the service that the test is about."""
    try:
        return nodes.run(probe, text=text)
    except VisitError as problem:
        pytest.fail(f"{part}: {problem}", pytrace=False)


@pytest.mark.needs_nodes
@pytest.mark.needs_service("sandbox")
def test_code_runs_in_the_sandbox(nodes: Nodes) -> None:
    text = secrets.token_hex(8)

    run = ran(nodes, "sandbox", "code", text)

    expected = f"{text[::-1]} {sum(ord(letter) for letter in text)}"
    assert run.outputs.get("answer") == expected, f"sandbox: result {expected!r} expected: {run.account}"


@pytest.mark.needs_nodes
@pytest.mark.needs_service("ssrf-proxy")
def test_squid_allows_difys_own_files(nodes: Nodes) -> None:
    run = ran(nodes, "ssrf-proxy", "allowed")

    assert not run.refused_by_squid, (
        f"ssrf-proxy: squid refuses Dify's own files, which it must allow: {run.account}"
    )
    # api sends its version with every answer; squid's error pages do not have it.
    assert "x-version" in run.headers, f"ssrf-proxy: squid returned no answer of api: {run.account}"


@pytest.mark.needs_nodes
@pytest.mark.needs_service("ssrf-proxy")
@pytest.mark.parametrize("probe", PROBES)
def test_squid_refuses_private_addresses(nodes: Nodes, probe: str) -> None:
    run = ran(nodes, "ssrf-proxy", probe)

    assert run.refused_by_squid, f"ssrf-proxy: squid must refuse {INSIDE[probe]}: {run.account}"


@pytest.mark.needs_knowledge
@pytest.mark.needs_service("worker")
def test_a_document_is_indexed_and_found(knowledge: Knowledge) -> None:
    word = f"canary{secrets.token_hex(6)}"
    dataset = knowledge.create()

    knowledge.wait(dataset, knowledge.add(dataset, f"The smoke tests look for the word {word}."))

    found = knowledge.find(dataset, word)
    assert any(word in text for text in found), f"the indexed document is not among the results {found!r}"


@pytest.mark.needs_service("plugin-daemon")
def test_plugin_daemon_looks_endpoints_up(target: Target, visitor: Client) -> None:
    # The daemon needs its database to know that this endpoint does not exist.
    answer = visitor.ask("GET", f"{target.url}/e/{secrets.token_hex(16)}/smoke-test")

    known = answer.status == 404 and "endpoint not found" in answer.text
    assert known, f"plugin-daemon: it cannot look up an endpoint: {answer!r}"


@pytest.mark.needs_stack
@pytest.mark.needs_service("plugin-daemon")
def test_plugin_daemon_answers_api(inside: Inside, deployment: Deployment) -> None:
    script = ASK_DAEMON.replace("WORKSPACE", str(uuid.uuid4()))

    code, output = inside.run(deployment.containers["api"], ["sh", "-c", script])

    body, _, status = output.rpartition("\n")
    assert code == 0, f"plugin-daemon: api cannot reach it: {output.strip()[-300:]}"
    # The daemon reports a lost database with status 200.
    assert (status, _code_in(body)) == ("200", 0), (
        f"plugin-daemon: it refuses api's request: {status} {body[:300]}"
    )


def _code_in(body: str) -> object:
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found.get("code") if isinstance(found, dict) else None
