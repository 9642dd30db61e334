"""Signing in at the gate as a person does: Chromium, nginx and gateway as deployed, and a real Keycloak by TLS."""

import json
import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from dify_kit.chromium import find_browser
from smoke_tests.pages import FLAGS, visit
from tests.integration.edge.oauth import OAuthEdge, configuration
from tests.integration.keycloak import Keycloak
from tests.integration.realms import GATE, PERSON, Realm

pytestmark = pytest.mark.browser

COOKIE = "dify_gate"
MILLISECONDS = 20_000


@pytest.fixture(scope="module")
def realm(keycloak_starting: Keycloak, oauth: OAuthEdge) -> Realm:
    """A realm whose people may pass, when their mail is of example.com. The edge starts while Keycloak does."""
    realm = Realm(name="gate-browser")
    keycloak_starting.wait()
    keycloak_starting.add_realm(realm)
    release(oauth, keycloak_starting, realm, "example.com")
    return realm


def release(oauth: OAuthEdge, keycloak: Keycloak, realm: Realm, domain: str) -> None:
    """Give the gateway a gate."""
    files = configuration()
    files["config.json"]["gate"] = {
        "origins": [oauth.edge.url],
        "issuer": keycloak.issuer(realm.name),
        "client_id": GATE,
        "client_secret": realm.gate_secret,
        "email_domains": [domain],
        "ca_file": "gate-ca.pem",
    }
    files["gate-ca.pem"] = keycloak.ca_file.read_text(encoding="utf-8")
    oauth.gateway.wait(oauth.gateway.switch(files))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=find_browser().path, chromium_sandbox=os.geteuid() != 0, args=[*FLAGS]
        )
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    # Keycloak's CA is the test's own.
    context = chromium.new_context(ignore_https_errors=True)
    context.set_default_timeout(MILLISECONDS)
    yield context
    context.close()


def sign_in(page: Page, realm: Realm) -> None:
    """Fill in Keycloak's form."""
    page.fill("#username", PERSON)
    page.fill("#password", realm.password)
    page.click("#kc-login")


def test_a_person_signs_in_and_out(
    realm: Realm, oauth: OAuthEdge, keycloak_starting: Keycloak, context: BrowserContext
) -> None:
    page, edge = context.new_page(), oauth.edge.url
    visit(page, f"{edge}/app/1/overview?a=b&c=%2F")
    assert page.url.startswith(f"{keycloak_starting.issuer(realm.name)}/protocol/openid-connect/auth?")
    sign_in(page, realm)

    # Back on the page that was asked for, with all of its query.
    expect(page).to_have_url(f"{edge}/app/1/overview?a=b&c=%2F")
    assert json.loads(page.inner_text("pre"))["path"] == "/app/1/overview?a=b&c=%2F"
    (cookie,) = [one for one in context.cookies() if one["name"] == COOKIE]
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Lax"
    assert page.evaluate("document.cookie") == ""
    called = (
        "fetch('/console/api/apps').then(async (answer) => [answer.status, (await answer.text()).length])"
    )
    assert page.evaluate(called)[0] == 200
    assert page.evaluate("fetch('/oauth2/userinfo').then((answer) => answer.json())")["email"] == (
        f"{PERSON}@example.com"
    )
    # Another tab is in as well.
    other = context.new_page()
    visit(other, f"{edge}/apps")
    assert other.url == f"{edge}/apps"

    visit(page, f"{edge}/oauth2/sign_out")

    # Keycloak took its own ID token as the hint: it asks nothing and leads back.
    expect(page).to_have_url(f"{edge}/oauth2/signed_out")
    assert not [one for one in context.cookies() if one["name"] == COOKIE]
    assert other.evaluate(called)[0] == 401
    visit(other, f"{edge}/apps")
    # Its session there is over too: it asks for the password again.
    expect(other.locator("#kc-login")).to_be_visible()


def test_a_person_of_another_domain_hears_why(
    realm: Realm, oauth: OAuthEdge, keycloak_starting: Keycloak, context: BrowserContext
) -> None:
    release(oauth, keycloak_starting, realm, "example.org")
    page = context.new_page()
    visit(page, f"{oauth.edge.url}/apps")
    sign_in(page, realm)

    expect(page.locator("h1")).to_have_text("No access")
    expect(page.locator("p").first).to_contain_text("the e-mail address is of another domain")
    assert not [one for one in context.cookies() if one["name"] == COOKIE]
