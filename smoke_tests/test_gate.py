"""The gate: it requires a session, redirects to the provider correctly, and leaves the other routes open.

Nothing here signs in: that needs a user's password.
"""

import secrets

import pytest

from infra.resources.console_transport import ContainerTransport, Request
from smoke_tests.client import Client
from smoke_tests.gate import CALL, PAGE, START, closed_call, closed_page, cookie_problems, sign_in_problems
from smoke_tests.target import Deployment, Target

pytestmark = pytest.mark.needs_gate
# These request pages and calls of the console, which dify:consoleAllowFrom may close to this machine. It never closes
# the sign-in below /oauth2/ nor the routes outside.
of_the_console = pytest.mark.usefixtures("_console")

# Dify answers unknown paths with 404 and sends its version with it.
OUTSIDE = ("/v1/smoke-test", "/files/smoke-test", "/mcp/smoke-test", "/triggers/smoke-test")


@of_the_console
def test_pages_redirect_to_the_sign_in(target: Target, visitor: Client) -> None:
    assert target.gate
    found = [closed_page(visitor.ask("GET", url, headers=PAGE), url) for url in target.gate.pages]

    assert not [problem for problem in found if problem]


@of_the_console
def test_calls_get_401(target: Target, visitor: Client) -> None:
    assert target.gate
    found = [closed_call(visitor.ask("GET", url, headers=CALL)) for url in target.gate.calls]

    assert not [problem for problem in found if problem]


@of_the_console
@pytest.mark.parametrize("claim", ["cookie", "made-up-header", "identity"])
def test_a_claimed_identity_is_ignored(target: Target, visitor: Client, claim: str) -> None:
    assert target.gate
    made_up = secrets.token_urlsafe(32)
    headers = {
        "cookie": {"Cookie": f"dify_gate={made_up}; __Host-dify_gate={made_up}; _oauth2_proxy={made_up}"},
        "made-up-header": {"X-Gate-Session": made_up, "Authorization": f"Bearer {made_up}"},
        "identity": {"X-Auth-Request-User": "admin", "X-Forwarded-User": "admin", "X-Gate-User": "admin"},
    }[claim]

    for url in target.gate.calls:
        assert not closed_call(visitor.ask("GET", url, headers=CALL | headers))


def test_the_sign_in_redirects_to_the_provider(target: Target, visitor: Client) -> None:
    assert target.gate
    answer = visitor.ask("GET", f"{target.gate.url}{START}?rd=/apps", headers=PAGE)

    assert not sign_in_problems(answer, target.gate)
    assert not cookie_problems(answer, https=target.gate.url.startswith("https://"))


def test_an_unsolicited_callback_opens_no_session(target: Target, visitor: Client) -> None:
    assert target.gate
    made_up = secrets.token_urlsafe(24)
    answer = visitor.ask(
        "GET", f"{target.gate.url}/oauth2/callback?code={made_up}&state={made_up}", headers=PAGE
    )

    assert answer.status == 400, answer
    assert not [cookie for cookie in answer.values("set-cookie") if "dify_gate=" in cookie]


@pytest.mark.parametrize("path", ["/console/api/apps", "/api/smoke-test"])
def test_a_preflight_is_answered_without_a_session(target: Target, visitor: Client, path: str) -> None:
    assert target.gate
    answer = visitor.once(
        "OPTIONS",
        f"{target.gate.url}{path}",
        headers={"Origin": target.gate.url, "Access-Control-Request-Method": "POST"},
    )

    assert answer.status == 204


@pytest.mark.parametrize("path", OUTSIDE)
def test_routes_outside_the_gate_stay_open(target: Target, visitor: Client, path: str) -> None:
    answer = visitor.ask("GET", f"{target.service_url}{path}", headers=PAGE)

    assert answer.header("x-version"), f"not an answer of Dify (X-Version is missing): {answer!r}"
    assert not answer.header("location")


@pytest.mark.needs_stack
def test_the_instance_behind_the_gate_is_claimed(deployment: Deployment) -> None:
    answer = ContainerTransport(deployment.containers["api"]).send(
        Request(method="GET", path="/console/api/setup")
    )

    # Otherwise the first user who signs in at the gate becomes its admin.
    assert answer.json()["step"] == "finished"
