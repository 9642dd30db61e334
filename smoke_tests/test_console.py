"""The console from outside. Nothing here signs in: failed attempts lock the admin out for a day."""

from urllib.parse import parse_qs, urlsplit

import pytest

from smoke_tests.client import Client
from smoke_tests.target import Deployment, Target

pytestmark = pytest.mark.usefixtures("_console")


@pytest.mark.needs_no_gate
def test_the_instance_is_claimed(target: Target, visitor: Client) -> None:
    answer = visitor.ask("GET", f"{target.console_url}/console/api/setup")

    # The first visitor of an unclaimed instance becomes its admin.
    assert answer.json()["step"] == "finished"


@pytest.mark.needs_no_gate
def test_the_console_is_served(target: Target, visitor: Client) -> None:
    answer = visitor.ask("GET", f"{target.console_url}/signin")

    assert answer.status == 200
    assert (answer.header("content-type") or "").startswith("text/html")
    assert "<html" in answer.text.lower()


@pytest.mark.parametrize("path", ["/console/api/apps", "/console/api/account/profile"])
def test_the_console_api_requires_a_session(target: Target, visitor: Client, path: str) -> None:
    answer = visitor.ask("GET", f"{target.console_url}{path}")

    assert answer.status == 401


@pytest.mark.needs_stack
@pytest.mark.needs_no_gate
@pytest.mark.parametrize("provider", ["github", "google"])
def test_sign_in_with_a_provider_comes_back_to_this_address(
    target: Target, deployment: Deployment, visitor: Client, provider: str
) -> None:
    answer = visitor.ask("GET", f"{target.console_url}/console/api/oauth/login/{provider}")

    if answer.status == 400:
        assert answer.json() == {"error": "Invalid provider"}, (
            "sign-in with this provider is not configured or fails"
        )
        return
    assert answer.status == 302
    sent = parse_qs(urlsplit(answer.header("location") or "").query)
    assert sent["redirect_uri"] == [deployment.callbacks[provider]]
