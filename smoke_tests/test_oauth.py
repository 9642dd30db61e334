"""OAuth on /v1: a token is issued and gives access to the routes of its scopes only."""

import secrets
import time
from collections.abc import Iterator

import pytest

from smoke_tests.chat import REMOVED, USER, message
from smoke_tests.client import Answer, Client
from smoke_tests.masking import Secret
from smoke_tests.oauth import TokenClient, bearer
from smoke_tests.target import Target

pytestmark = pytest.mark.needs_oauth

INVALID_TOKEN = {
    "error": "invalid_token",
    "error_description": "The access token is invalid or has expired",
}
CHALLENGE = 'Bearer error="invalid_token"'
# nginx caches introspection results for four seconds.
REVOKED_SECONDS = 5.0


def refused(answer: Answer) -> None:
    """Check the answer that the contract defines for an invalid token."""
    assert answer.status == 401, answer
    assert answer.json() == INVALID_TOKEN
    assert answer.header("www-authenticate") == CHALLENGE


@pytest.fixture(scope="module")
def token(token_client: TokenClient) -> Iterator[Secret]:
    """One token for all tests, revoked afterwards."""
    token = token_client.token()
    yield token
    token_client.revoke(token)


def test_a_token_is_issued(token_client: TokenClient) -> None:
    answer = token_client.request(scope="chat")

    assert answer.status == 200
    assert answer.header("cache-control") == "no-store"
    body = answer.json()
    assert body["token_type"] == "Bearer"  # noqa: S105  # a type
    assert body["scope"] == "chat"
    assert body["expires_in"] >= 60


def test_a_token_opens_the_chat(
    target: Target, visitor: Client, token_client: TokenClient, token: Secret
) -> None:
    scopes = token_client.request().json()["scope"].split()
    query = f"smoke test {secrets.token_hex(6)}"
    answer = visitor.ask(
        "POST",
        f"{target.service_url}/v1/chat-messages",
        headers=bearer(token),
        body=message(query, mode="blocking"),
    )
    assert answer.status == 200, answer
    body = answer.json()

    assert body["answer"].strip()
    # The app key that replaces the token must not leave the edge.
    assert not answer.repeats_key
    if "conversations" in scopes:
        removed = visitor.ask(
            "DELETE",
            f"{target.service_url}/v1/conversations/{body['conversation_id']}",
            headers=bearer(token),
            body={"user": USER},
        )
        assert removed.status in REMOVED


def test_a_route_outside_of_the_scope_stays_closed(
    target: Target, visitor: Client, token_client: TokenClient
) -> None:
    token = token_client.token(scope="chat")
    answer = visitor.ask(
        "GET", f"{target.service_url}/v1/conversations?user={USER}&limit=1", headers=bearer(token)
    )

    assert answer.status == 403, answer
    body = answer.json()
    assert body["error"] == "insufficient_scope"
    assert body["scope"] == "conversations"


def test_a_route_that_no_scope_lists_stays_closed(target: Target, visitor: Client, token: Secret) -> None:
    answer = visitor.ask("GET", f"{target.service_url}/v1/datasets", headers=bearer(token))

    assert answer.status == 403, answer
    assert answer.json()["error"] == "insufficient_scope"


@pytest.mark.needs_failures
def test_a_wrong_secret_gets_no_token(token_client: TokenClient) -> None:
    answer = token_client.request(secret=Secret(f"dks_{secrets.token_urlsafe(32)}"))

    assert answer.status == 401, answer
    assert answer.json()["error"] == "invalid_client"


@pytest.mark.needs_failures
def test_a_refusal_does_not_reveal_whether_the_client_exists(token_client: TokenClient) -> None:
    wrong = token_client.request(secret=Secret(f"dks_{secrets.token_urlsafe(32)}"))
    unknown = token_client.request(client=f"smoke-{secrets.token_hex(6)}")

    assert unknown.status == wrong.status == 401
    assert unknown.text == wrong.text


def test_an_unknown_scope_is_refused(token_client: TokenClient) -> None:
    answer = token_client.request(scope="smoke-test")

    assert answer.status == 400, answer
    assert answer.json()["error"] == "invalid_scope"


def test_a_token_signed_by_another_key_is_refused(
    target: Target, visitor: Client, token_client: TokenClient
) -> None:
    answer = visitor.ask(
        "GET", f"{target.service_url}/v1/parameters", headers=bearer(token_client.foreign_token())
    )

    refused(answer)


def test_a_changed_token_is_refused(target: Target, visitor: Client, token: Secret) -> None:
    head, claims, signature = token.reveal().split(".")
    other = f"{head}.{claims}.{signature[:-4]}{'AAAA' if signature[-4:] != 'AAAA' else 'BBBB'}"
    answer = visitor.ask("GET", f"{target.service_url}/v1/parameters", headers=bearer(Secret(other)))

    refused(answer)


def test_a_revoked_token_is_refused(target: Target, visitor: Client, token_client: TokenClient) -> None:
    url = f"{target.service_url}/v1/parameters"
    token = token_client.token(scope="chat")
    assert visitor.ask("GET", url, headers=bearer(token)).status == 200

    assert token_client.revoke(token).status == 200

    deadline = time.monotonic() + REVOKED_SECONDS
    while (answer := visitor.ask("GET", url, headers=bearer(token))).status == 200:
        assert time.monotonic() < deadline, "a revoked token still works"
        time.sleep(0.5)
    refused(answer)


@pytest.mark.parametrize("path", ["/verify", "/oauth/verify", "/oauth/healthz", "/oauth/../verify"])
def test_the_token_check_is_internal(target: Target, visitor: Client, token: Secret, path: str) -> None:
    answer = visitor.ask("GET", f"{target.url}{path}", headers=bearer(token))

    # An unknown path may be answered by a page of the web app.
    assert not [name for name, _ in answer.headers if name.startswith("x-auth-")]
    assert '"revisions"' not in answer.text
