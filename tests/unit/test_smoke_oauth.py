"""The smoke tests' OAuth client: where it comes from, how it is given, and that it never shows a token."""

import json
from typing import Any

import pytest

from smoke_tests.client import Answer
from smoke_tests.exports import TargetError
from smoke_tests.masking import MASK, Redactor, Secret
from smoke_tests.oauth import Access, TokenClient, bearer
from smoke_tests.run import Run
from smoke_tests.selection import left_out
from smoke_tests.target import from_exports, from_outside
from tests.unit.test_smoke_options import options as read
from tests.unit.test_smoke_target import EXPORTS, FakeItem, chosen

CANARY_SECRET = "dks_of-the-canary-1234567890"
ON: dict[str, Any] = {
    **EXPORTS,
    "oauth": {"issuer": "https://id.example.com"},
    "oauthCanary": {"clientId": "canary", "clientSecret": CANARY_SECRET},
}
TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl"


class Recording:
    """A visitor whose environment answers every request with a token."""

    def __init__(self) -> None:
        self.sent: list[dict[str, str]] = []

    def ask(self, method: str, url: str, *, form: dict[str, str]) -> Answer:
        assert method == "POST"
        self.sent.append({"url": url, **form})
        body = json.dumps({"access_token": TOKEN, "token_type": "Bearer"}).encode()
        return Answer(
            asked=url, status=200, headers=(), text=body.decode(), seconds=0.1, arrivals=((0.1, body),)
        )


def token_client(redact: Redactor) -> tuple[TokenClient, Recording]:
    visitor = Recording()
    access = Access(issuer="https://id.example.com", client="canary", secret=Secret(CANARY_SECRET))
    return TokenClient(access=access, client=visitor, redact=redact), visitor  # type: ignore[arg-type]


def test_a_stacks_own_client_is_found() -> None:
    target = from_exports(ON, chosen())

    assert target.verifies_tokens
    assert target.oauth
    assert (target.oauth.issuer, target.oauth.client) == ("https://id.example.com", "canary")
    assert target.oauth.secret.reveal() == CANARY_SECRET
    assert CANARY_SECRET not in repr(target)


@pytest.mark.parametrize(
    ("exports", "reason"),
    [
        (EXPORTS, "OAuth is off"),
        ({**EXPORTS, "oauth": None, "oauthCanary": None}, "OAuth is off"),
        ({**ON, "oauthCanary": None}, "give --oauth-client"),
    ],
)
def test_without_a_client_its_tests_are_left_out(exports: dict[str, Any], reason: str) -> None:
    run = Run(options=chosen(), redact=Redactor(), target=from_exports(exports, chosen()))

    assert reason in left_out(run, FakeItem("test_a_token_is_issued", "needs_oauth"))  # type: ignore[arg-type]


def test_broken_export_names_itself() -> None:
    with pytest.raises(TargetError, match="export clientSecret is missing"):
        from_exports({**ON, "oauthCanary": {"clientId": "canary"}}, chosen())


def test_client_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFY_OAUTH_CLIENT_SECRET", "dks_given-by-hand")
    given = read("--url", "https://dify.example.com", "--api-key", "app-12345678", "--oauth-client", "bot")
    target = from_outside(given)

    assert target.oauth
    assert (target.oauth.issuer, target.oauth.client) == ("https://dify.example.com", "bot")
    assert target.oauth.secret.reveal() == "dks_given-by-hand"
    stack = from_exports(ON, given)
    assert stack.oauth
    assert (stack.oauth.issuer, stack.oauth.client) == ("https://id.example.com", "bot")


def test_secret_comes_from_stdin_too() -> None:
    given = read(
        "--stack", "dev", "--oauth-client", "bot", "--oauth-secret-file", "-", stdin="dks_piped-in\n"
    )

    assert given.oauth_secret
    assert given.oauth_secret.reveal() == "dks_piped-in"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--oauth-client", "bot"), "DIFY_OAUTH_CLIENT_SECRET"),
        (("--oauth-secret-file", "-"), "give --oauth-client"),
        (
            ("--oauth-client", "bot", "--oauth-secret-file", "/no/such/file"),
            "--oauth-secret-file /no/such/file",
        ),
        (("--oauth-client", "bot", "--oauth-secret-file", "-", "--api-key-file", "-"), "only one of them"),
        (("--oauth-client", "bot", "--oauth-secret-file", "-"), "not an OAuth client's secret"),
    ],
)
def test_wrong_options_are_refused(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.delenv("DIFY_OAUTH_CLIENT_SECRET", raising=False)

    with pytest.raises(pytest.UsageError, match=message):
        read("--stack", "dev", *arguments, stdin="two words")


def test_client_for_a_stack_without_oauth() -> None:
    given = read("--stack", "dev", "--oauth-client", "bot", "--oauth-secret-file", "-", stdin="dks_piped-in")

    with pytest.raises(TargetError, match="OAuth is off"):
        from_exports(EXPORTS, given)


def test_token_comes_by_a_form_and_is_masked_from_then_on() -> None:
    redact = Redactor()
    client, visitor = token_client(redact)

    token = client.token(scope="chat")

    assert visitor.sent == [
        {
            "url": "https://id.example.com/oauth/token",
            "grant_type": "client_credentials",
            "scope": "chat",
            "client_id": "canary",
            "client_secret": CANARY_SECRET,
        }
    ]
    assert token.reveal() == TOKEN
    assert bearer(token) == {"Authorization": f"Bearer {TOKEN}"}
    assert redact(f"it said {TOKEN}") == f"it said {MASK}"
    assert TOKEN not in repr(client)
    assert CANARY_SECRET not in repr(client)


def test_foreign_token_looks_like_a_real_one() -> None:
    client, _ = token_client(Redactor())

    head, claims, signature = client.foreign_token().reveal().split(".")

    assert all((head, claims, signature))
