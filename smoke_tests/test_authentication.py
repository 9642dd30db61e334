"""API keys on /v1: Dify checks them, and the edge passes Dify's own errors on."""

import secrets

import pytest

from smoke_tests.client import Client
from smoke_tests.target import Target

CHALLENGE = 'Bearer realm="api"'
NO_HEADER = "Authorization header must be provided and start with 'Bearer'"
WRONG_SCHEME = "Authorization scheme must be 'Bearer'"
WRONG_KEY = "Access token is invalid"
# Three parts of base64url, as in an OAuth access token, with a made-up signature.
JWT = (
    "eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJzdWIiOiJzbW9rZS10ZXN0In0."
    "c21va2UtdGVzdC1zbW9rZS10ZXN0LXNtb2tlLXRlc3Qtc21va2UtdGVzdC1zbW9rZS10ZXN0LTE"
)


@pytest.mark.needs_key
def test_the_key_is_accepted(target: Target, visitor: Client) -> None:
    answer = visitor.ask("GET", f"{target.service_url}/v1/parameters", key=True)

    assert answer.status == 200
    assert "user_input_form" in answer.json()


@pytest.mark.needs_key
def test_no_answer_repeats_the_key(target: Target, visitor: Client) -> None:
    answer = visitor.ask("GET", f"{target.service_url}/v1/info", key=True)

    # Some builds set a cookie with the caller's key.
    assert answer.status == 200
    assert not answer.repeats_key


@pytest.mark.parametrize(
    ("authorization", "message"),
    [
        pytest.param(None, NO_HEADER, id="no-header"),
        pytest.param("app-smoke-test-without-scheme", NO_HEADER, id="no-scheme"),
        pytest.param("Bearer", NO_HEADER, id="scheme-alone"),
        pytest.param("Basic c21va2U6dGVzdA==", WRONG_SCHEME, id="wrong-scheme"),
        pytest.param(f"Bearer app-{secrets.token_urlsafe(18)}", WRONG_KEY, id="wrong-key"),
        pytest.param(f"bearer app-{secrets.token_urlsafe(18)}", WRONG_KEY, id="wrong-key-lower-case-scheme"),
    ],
)
def test_other_credentials_get_difys_own_401(
    target: Target, visitor: Client, authorization: str | None, message: str
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    answer = visitor.ask("GET", f"{target.service_url}/v1/parameters", headers=headers)

    assert answer.status == 401
    assert answer.header("www-authenticate") == CHALLENGE
    assert answer.header("content-type") == "application/json"
    assert answer.json() == {"code": "unauthorized", "message": message, "status": 401}


def test_a_malformed_token_is_refused(target: Target, visitor: Client) -> None:
    answer = visitor.ask(
        "GET", f"{target.service_url}/v1/parameters", headers={"Authorization": f"Bearer {JWT}"}
    )

    assert answer.status == 401
    if target.verifies_tokens is None:
        # From outside it is unknown whether Dify or a gateway checks the token.
        assert answer.json().get("code", answer.json().get("error")) in {"unauthorized", "invalid_token"}
    elif target.verifies_tokens:
        assert answer.header("www-authenticate") == 'Bearer error="invalid_token"'
        assert answer.json()["error"] == "invalid_token"
    else:
        assert answer.header("www-authenticate") == CHALLENGE
        assert answer.json() == {"code": "unauthorized", "message": WRONG_KEY, "status": 401}


def test_chat_requires_a_key(target: Target, visitor: Client) -> None:
    body = {"inputs": {}, "query": "smoke test", "response_mode": "blocking", "user": "dify-kit-smoke-tests"}
    answer = visitor.ask("POST", f"{target.service_url}/v1/chat-messages", body=body)

    assert answer.status == 401
    assert answer.json()["code"] == "unauthorized"


@pytest.mark.needs_key
def test_an_apps_key_does_not_open_the_knowledge_api(target: Target, visitor: Client) -> None:
    answer = visitor.ask("GET", f"{target.service_url}/v1/datasets", key=True)

    assert answer.status == 401
    assert answer.json()["message"] == WRONG_KEY
