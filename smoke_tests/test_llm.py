"""The LLM proxy: refuses requests without a key in OpenAI's error format, and serves callers exactly its models."""

import secrets

import pytest

from smoke_tests.client import Answer, Client
from smoke_tests.cors import UNRELATED
from smoke_tests.llm import Llm, error_problems, events, leaks
from smoke_tests.masking import Secret
from smoke_tests.oauth import TokenClient, bearer
from smoke_tests.target import Target

pytestmark = pytest.mark.needs_llm

PROBE = "smoke-test"
CHAT = "/chat/completions"
SCOPE = "llm"


@pytest.fixture
def llm(target: Target) -> Llm:
    """Return the proxy."""
    assert target.llm is not None
    return target.llm


@pytest.fixture
def caller(llm: Llm) -> dict[str, str]:
    """Return the header of a caller, for tests marked needs_llm_key."""
    assert llm.key is not None
    return bearer(llm.key)


def routes(llm: Llm) -> tuple[tuple[str, str], ...]:
    """Return (method, URL) of every route that needs a caller's key."""
    return (
        ("GET", f"{llm.url}/models"),
        ("POST", f"{llm.url}{CHAT}"),
        ("POST", f"{llm.url}/embeddings"),
        ("POST", llm.short_url),
    )


def refusals(visitor: Client, llm: Llm, headers: dict[str, str]) -> list[str]:
    """Request each route with these headers; return what is wrong with each answer that is not a refusal."""
    found = []
    for method, url in routes(llm):
        # An unknown model: if the request is accepted by mistake, it costs nothing.
        body = {"model": PROBE, "messages": []} if method == "POST" else None
        answer = visitor.ask(method, url, headers=headers, body=body)
        found += error_problems(answer, 401, "authentication_error")
        if answer.status == 401 and not (answer.header("www-authenticate") or "").startswith("Bearer"):
            found.append(f"WWW-Authenticate with a Bearer challenge is missing: {answer!r}")
    return found


def test_a_request_without_a_key_is_refused(visitor: Client, llm: Llm) -> None:
    assert refusals(visitor, llm, {}) == []


def test_an_unknown_key_is_refused(visitor: Client, llm: Llm) -> None:
    # In the format of a key that the kit issues, so that the proxy looks it up.
    junk = Secret(f"dkp_{secrets.token_urlsafe(32)}")

    assert refusals(visitor, llm, bearer(junk)) == []


def test_refusals_contain_no_key(visitor: Client, llm: Llm) -> None:
    for method, url in routes(llm):
        answer = visitor.ask(method, url, body={"model": PROBE} if method == "POST" else None)

        assert leaks(answer) == [], f"{answer.asked}: the edge must remove these headers"


def preflight(visitor: Client, llm: Llm, origin: str) -> Answer:
    """Send the preflight of a browser for a request of OpenAI's JavaScript client."""
    return visitor.ask(
        "OPTIONS",
        f"{llm.url}{CHAT}",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
        },
    )


def test_allowed_origins_pass_the_preflight(visitor: Client, llm: Llm) -> None:
    for origin in llm.origins:
        asked = UNRELATED if origin == "*" else origin
        answer = preflight(visitor, llm, asked)

        assert answer.status in {200, 204}, answer
        assert answer.header("access-control-allow-origin") == origin, answer
        allowed = (answer.header("access-control-allow-headers") or "").lower()
        for name in ("authorization", "content-type", "x-stainless-lang"):
            assert name in allowed, f"header {name} of OpenAI's browser client is not allowed: {answer!r}"


def test_other_origins_fail_the_preflight(visitor: Client, target: Target, llm: Llm) -> None:
    if "*" in llm.origins:
        others = []
    else:
        others = [origin for origin in (UNRELATED, "null", target.url) if origin not in llm.origins]
    for origin in others:
        answer = preflight(visitor, llm, origin)

        assert [name for name, _ in answer.headers if name.startswith("access-control-")] == [], answer


@pytest.mark.needs_llm_key
def test_a_caller_lists_the_served_models(visitor: Client, llm: Llm, caller: dict[str, str]) -> None:
    answer = visitor.ask("GET", f"{llm.url}/models", headers=caller)

    assert answer.status == 200, answer
    assert leaks(answer) == []
    assert not answer.repeats_key
    assert sorted(one["id"] for one in answer.json()["data"]) == sorted(llm.models)


@pytest.mark.needs_llm_key
def test_a_model_that_is_not_served_is_refused(visitor: Client, llm: Llm, caller: dict[str, str]) -> None:
    for url in (f"{llm.url}{CHAT}", llm.short_url):
        answer = visitor.ask("POST", url, headers=caller, body={"model": PROBE, "messages": []})

        assert error_problems(answer, 404) == []
        assert answer.json()["error"]["code"] == "model_not_found"
        assert leaks(answer) == []


@pytest.mark.needs_llm_key
def test_chat_completions_refuse_get(visitor: Client, llm: Llm, caller: dict[str, str]) -> None:
    answer = visitor.ask("GET", f"{llm.url}{CHAT}", headers=caller)

    assert error_problems(answer, 405) == []


@pytest.mark.needs_oauth
def test_a_token_needs_the_llm_scope(visitor: Client, llm: Llm, token_client: TokenClient) -> None:
    granted = token_client.request().json()["scope"].split()
    for scope in granted:
        token = token_client.token(scope=scope)
        answer = visitor.ask("GET", f"{llm.url}/models", headers=bearer(token))

        if scope == SCOPE:
            assert answer.status == 200, answer
            assert sorted(one["id"] for one in answer.json()["data"]) == sorted(llm.models)
        else:
            assert error_problems(answer, 403) == []
            assert answer.json()["error"]["code"] == "insufficient_scope"
        assert leaks(answer) == []
        assert not answer.repeats_key
        token_client.revoke(token)


def question(llm: Llm, **more: object) -> dict[str, object]:
    return {
        "model": llm.chat_model,
        "messages": [{"role": "user", "content": "Answer with one word: ready"}],
        **more,
    }


@pytest.mark.needs_llm_key
@pytest.mark.needs_llm_chat
def test_a_model_answers(visitor: Client, llm: Llm, caller: dict[str, str]) -> None:
    answer = visitor.ask("POST", f"{llm.url}{CHAT}", headers=caller, body=question(llm))

    assert answer.status == 200, answer
    assert answer.json()["choices"][0]["message"]["content"].strip()
    assert leaks(answer) == []
    assert not answer.repeats_key


@pytest.mark.needs_llm_key
@pytest.mark.needs_llm_chat
def test_a_model_answers_as_a_stream(visitor: Client, llm: Llm, caller: dict[str, str]) -> None:
    answer = visitor.ask("POST", f"{llm.url}{CHAT}", headers=caller, body=question(llm, stream=True))

    assert answer.status == 200, answer
    assert (answer.header("content-type") or "").startswith("text/event-stream"), answer
    *pieces, last = events(answer)
    assert last.data == "[DONE]", "the stream ended without [DONE]"
    choices = [choice for piece in pieces for choice in piece.json().get("choices", [])]
    assert "".join(choice["delta"].get("content") or "" for choice in choices).strip(), answer
    assert leaks(answer) == []
    assert not answer.repeats_key
