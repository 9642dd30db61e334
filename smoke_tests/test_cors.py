"""CORS headers: exactly one set, on every status, for allowed and refused origins.

An occasional 429 does no harm: it must carry the same headers.
"""

import pytest

from infra.catalogue.route_groups import SERVICE_API
from smoke_tests.chat import Chat
from smoke_tests.client import TOO_MANY_REQUESTS, Client
from smoke_tests.cors import Case, problems, tokens
from smoke_tests.target import Target

pytestmark = pytest.mark.needs_policy

ASKED_HEADERS = ("authorization", "content-type")


def test_preflight(visitor: Client, case: Case) -> None:
    answer = visitor.once(
        "OPTIONS",
        case.policy.path,
        headers={
            "Origin": case.origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": ",".join(ASKED_HEADERS),
        },
    )

    assert answer.status == 204
    assert not problems(answer, case)
    if case.policy.answer_to(case.origin):
        assert "post" in tokens(answer.values("access-control-allow-methods"))
        assert set(ASKED_HEADERS) <= set(tokens(answer.values("access-control-allow-headers")))
        assert int(answer.header("access-control-max-age") or 0) > 0


def test_request(visitor: Client, sent_case: Case) -> None:
    answer = visitor.once("GET", sent_case.policy.path, headers={"Origin": sent_case.origin})

    if sent_case.policy.group == SERVICE_API:
        assert answer.status in {401, TOO_MANY_REQUESTS}
    assert answer.status < 500
    assert not problems(answer, sent_case)


@pytest.fixture
def probe(target: Target) -> Case:
    """Return an origin that may call /v1, or the stack's own pages when no other may."""
    return Case(policy=target.v1, kind="probe", origin=target.v1.probe)


def test_a_refused_key_carries_the_headers(visitor: Client, probe: Case) -> None:
    answer = visitor.once(
        "GET",
        probe.policy.path,
        headers={"Origin": probe.origin, "Authorization": "Bearer app-smoke-test-wrong-key"},
    )

    assert answer.status in {401, TOO_MANY_REQUESTS}
    assert not problems(answer, probe)


def test_an_unknown_route_carries_the_headers(visitor: Client, probe: Case) -> None:
    answer = visitor.once("GET", f"{probe.policy.url}/v1/smoke-test", headers={"Origin": probe.origin})

    assert answer.status in {404, TOO_MANY_REQUESTS}
    assert not problems(answer, probe)


def test_a_body_over_the_limit_carries_the_headers(target: Target, visitor: Client, probe: Case) -> None:
    answer = visitor.announce(
        f"{probe.policy.url}/v1/files/upload", size=target.too_large, origin=probe.origin
    )

    assert answer.status == 413
    assert not problems(answer, probe)


def test_a_request_without_origin_gets_no_cors_headers(visitor: Client, target: Target) -> None:
    answer = visitor.once("GET", target.v1.path)

    assert answer.status in {401, TOO_MANY_REQUESTS}
    assert not [header for header in answer.headers if header[0].startswith("access-control-")]
    assert tokens(answer.values("vary")).count("origin") == 1


@pytest.mark.needs_key
def test_an_accepted_request_carries_the_headers(visitor: Client, probe: Case) -> None:
    answer = visitor.ask("GET", probe.policy.path, key=True, headers={"Origin": probe.origin})

    assert answer.status == 200
    assert not problems(answer, probe)


@pytest.mark.needs_key
def test_a_stream_carries_the_headers(chat: Chat, probe: Case) -> None:
    answer = chat.send("smoke test", mode="streaming", Origin=probe.origin)

    assert answer.status == 200
    assert (answer.header("content-type") or "").startswith("text/event-stream")
    assert not problems(answer, probe)
