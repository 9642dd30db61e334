"""The gate at the edge: nginx as rendered, gateway, Redis and provider over HTTP; Dify is the echoing upstream."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.integration.edge.container import ALLOWED
from tests.integration.edge.oauth import CHAT, OAuthEdge, configuration, seen
from tests.unit.gateway import provider as providers
from tests.unit.gateway.provider import CLIENT, SECRET, Provider

COOKIE = "dify_gate"
PAGE = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "Sec-Fetch-Mode": "navigate"}
WELL_SECONDS = 60.0


@dataclass
class Browser:
    """A browser before the edge. Cookies of `localhost` go to every port, as in real ones."""

    oauth: OAuthEdge
    provider: Provider
    http: httpx.Client

    @property
    def origin(self) -> str:
        return self.oauth.edge.url

    def page(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(path, headers={**PAGE, **headers})

    def raw(self, path: str, host: str = "dify.test", accept: str = "text/html") -> httpx.Response:
        """Ask for a path as it is: libraries would write it in another way."""
        lines = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        return self.oauth.edge.raw(lines.encode()).response

    def sign_in(self, path: str = "/apps") -> httpx.Response:
        """Open a page, sign in at the provider, and come back: the answer to the callback."""
        led = self.page(path)
        assert led.status_code == 302, led.text
        started = time.monotonic()
        # A worker of the gateway that has just started asks its people to try again.
        while (asked := self.http.get(led.headers["location"])).status_code == 503:
            assert time.monotonic() - started < WELL_SECONDS, asked.text
            time.sleep(0.2)
        assert asked.status_code == 302, asked.text
        return self.http.get(self.provider.authorize(asked.headers["location"]))

    @property
    def session(self) -> str:
        return str(self.http.cookies.get(COOKIE, ""))


@pytest.fixture(scope="module")
def provider(oauth: OAuthEdge) -> Iterator[Provider]:
    """A provider on this machine that the gateway's container reaches, and a gateway that is configured with it."""
    network = oauth.gateway.network
    network.reload()
    with providers.running(network.attrs["IPAM"]["Config"][0]["Gateway"]) as one:
        files = configuration()
        files["config.json"]["gate"] = {
            "origins": [oauth.edge.url],
            "issuer": one.url,
            "client_id": CLIENT,
            "client_secret": SECRET,
            "session_seconds": 300,
        }
        oauth.gateway.wait(oauth.gateway.switch(files))
        yield one


@pytest.fixture
def browser(oauth: OAuthEdge, provider: Provider) -> Iterator[Browser]:
    with httpx.Client(base_url=oauth.edge.url, timeout=20, follow_redirects=False) as http:
        yield Browser(oauth, provider, http)


@pytest.fixture
def person(browser: Browser) -> Browser:
    """A user who signed in."""
    assert browser.sign_in().status_code == 302
    assert browser.session
    return browser


@pytest.mark.parametrize(
    "path", ["/", "/apps", "/chat/Ab1", "/app/1/overview?a=b&c=%2F%20x", "/explore/apps"]
)
def test_a_page_leads_to_the_sign_in(browser: Browser, path: str) -> None:
    answer = browser.page(path)

    # Relative: whatever name and port people come by.
    assert (answer.status_code, answer.headers["location"]) == (302, f"/oauth2/start?rd={path}")
    assert "x-from-upstream" not in answer.headers


def test_signed_in_the_page_is_there(browser: Browser) -> None:
    back = browser.sign_in("/app/1/overview?a=b&c=%2F%20x")
    assert back.headers["location"] == f"{browser.origin}/app/1/overview?a=b&c=%2F%20x"

    answer = browser.page("/app/1/overview?a=b")

    assert answer.status_code == 200
    assert answer.headers["x-from-upstream"] == "1"
    entry = json.loads(browser.oauth.edge.logged(answer.headers["x-request-id"]))
    assert entry["user"] == "person-1"
    assert browser.session not in json.dumps(entry)


CALLS = [
    ("GET", "/console/api/apps"),
    ("POST", "/console/api/login"),
    ("GET", "/console/api/setup"),
    ("GET", "/api/parameters"),
    ("POST", "/api/chat-messages"),
    ("GET", "/socket.io/?EIO=4&transport=polling"),
    ("GET", "/_next/static/chunks/main.js"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_a_call_hears_401_in_the_shape_of_its_group(browser: Browser, method: str, path: str) -> None:
    answer = browser.http.request(method, path, headers={"Accept": "*/*"})

    assert answer.status_code == 401
    assert answer.json() == {"code": "unauthorized", "message": "Authentication is required.", "status": 401}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert "x-from-upstream" not in answer.headers
    assert "location" not in answer.headers


@pytest.mark.parametrize("path", ["/console/api/apps", "/api/parameters"])
def test_a_page_of_an_allowed_origin_can_read_the_401(browser: Browser, path: str) -> None:
    answer = browser.http.get(path, headers={"Origin": ALLOWED})
    other = browser.http.get(path, headers={"Origin": "https://unrelated.example"})

    assert answer.status_code == other.status_code == 401
    assert answer.headers["access-control-allow-origin"] == ALLOWED
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("path", ["/console/api/apps", "/api/parameters"])
def test_a_preflight_needs_no_session(browser: Browser, path: str) -> None:
    asked = {"Origin": ALLOWED, "Access-Control-Request-Method": "POST"}

    assert browser.http.options(path, headers=asked).status_code == 204


@pytest.mark.parametrize("path", ["/v1/info", "/files/x", "/e/200", "/triggers/x", "/mcp/x", "/openapi/x"])
def test_what_is_outside_is_untouched(browser: Browser, path: str) -> None:
    for headers in ({}, PAGE):
        answer = browser.http.get(path, headers=headers)

        assert answer.headers["x-from-upstream"] == "1", answer.text
        assert answer.status_code == (401 if path == "/v1/info" else 200)


def test_tokens_and_health_are_outside(browser: Browser) -> None:
    assert browser.http.get("/healthz").json() == {"status": "ok"}
    assert (
        browser.http.post("/oauth/token", data={"grant_type": "x"}).json()["error"]
        == "unsupported_grant_type"
    )
    assert browser.http.get("/.well-known/oauth-authorization-server").status_code == 200
    assert browser.oauth.ask(browser.oauth.token()).status_code == 200


def test_dify_hears_nothing_of_the_session_and_nobody_speaks_for_somebody(person: Browser) -> None:
    person.http.cookies.set("access_token", "difys-own")
    claims = {
        "X-Auth-Request-User": "admin",
        "X-Auth-Request-Email": "admin@example.com",
        "X-Forwarded-User": "admin",
        "X-Forwarded-Groups": "ops",
        "Remote-User": "admin",
        "X-Gate-User": "admin",
    }

    for path in ("/console/api/apps", "/v1/info", "/files/x"):
        received = seen(person.http.get(path, headers={"Authorization": "Bearer app-x", **claims}))

        assert received["Authorization"] == "Bearer app-x"
        assert not {name.lower() for name in received} & {name.lower() for name in claims}
        assert person.session not in json.dumps(received)
        assert "access_token=difys-own" in received["Cookie"]


def test_a_body_goes_through(person: Browser) -> None:
    answer = person.http.post("/console/api/apps", json={"name": "x" * 100_000})

    assert answer.status_code == 200
    assert answer.json()["length"] == len('{"name":"') + 100_000 + 2


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example/",
        "/\\evil.example/",
        "//evil.example/%2e",
        "/oauth2/sign_out",
        "/oauth2/start?rd=//evil",
    ],
)
def test_a_sign_in_ends_on_this_host(browser: Browser, path: str) -> None:
    asked = browser.raw(f"/oauth2/start?rd={path}", urlsplit(browser.origin).netloc)
    name, _, value = asked.headers["set-cookie"].split(";")[0].partition("=")
    browser.http.cookies.set(name, value)

    back = browser.http.get(browser.provider.authorize(asked.headers["location"]))

    assert back.status_code == 302
    assert back.headers["location"] == f"{browser.origin}/"


def test_a_page_of_many_slashes_leads_to_this_host(browser: Browser) -> None:
    answer = browser.raw("//evil.example/%2f")

    assert answer.status_code == 302
    assert answer.headers["location"].startswith("/oauth2/start?rd=")


@pytest.mark.parametrize("cookie", ["x", "A" * 43, "A" * 44, "", "A" * 8000])
def test_a_made_up_session_does_not_pass(browser: Browser, cookie: str) -> None:
    answer = browser.http.get("/console/api/apps", headers={"Cookie": f"{COOKIE}={cookie}"})

    assert answer.status_code == 401


def test_a_session_counts_as_one_cookie_only(person: Browser) -> None:
    with httpx.Client(base_url=person.origin) as other:
        statuses = {
            name: other.get("/console/api/apps", headers=headers).status_code
            for name, headers in {
                "alone": {"Cookie": f"a=b; {COOKIE}={person.session}"},
                "twice": {"Cookie": f"{COOKIE}=x; {COOKIE}={person.session}"},
                "as a header": {"X-Gate-Session": person.session},
                "as a bearer": {"Authorization": f"Bearer {person.session}"},
                "of another name": {"Cookie": f"x{COOKIE}={person.session}"},
            }.items()
        }

    assert statuses.pop("alone") == 200
    assert set(statuses.values()) == {401}


INSIDE = [
    "/%63onsole/api/apps",
    "//console/api/apps",
    "/console//api/apps",
    "/v1/../console/api/apps",
    "/v1/%2e%2e/console/api/apps",
    "/v1%2f..%2fconsole/api/apps",
    "/files/..;/console/api/apps",
    "/healthz/../console/api/apps",
    "/CONSOLE/API/apps",
    "/v1x/apps",
    "/_gate_check",
    "/gate",
    "/verify",
]


@pytest.mark.parametrize("path", INSIDE)
def test_no_spelling_comes_past_the_gate(browser: Browser, path: str) -> None:
    answer = browser.raw(path, accept="*/*")

    if path == "/files/..;/console/api/apps":
        # A file of this name, of which Dify knows none: it reads no path parameters.
        assert json.loads(answer.text)["path"] == path
        return
    assert "x-from-upstream" not in answer.headers
    assert answer.status_code in {401, 404}
    assert "x-gate-user" not in answer.headers


def test_a_socket_needs_a_session(person: Browser) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "eA==",
    }
    path = "/socket.io/?EIO=4&transport=websocket"

    with httpx.Client(base_url=person.origin) as other:
        assert other.get(path, headers=upgrade).status_code == 401
    received = seen(person.http.get(path, headers=upgrade))
    assert received["Upgrade"] == "websocket"


def test_who_signed_out_is_out_at_once(person: Browser) -> None:
    session = person.session
    assert person.http.get("/console/api/apps").status_code == 200

    answer = person.page("/oauth2/sign_out")

    assert answer.headers["location"].startswith(f"{person.provider.url}/end-session?")
    hint = parse_qs(urlsplit(answer.headers["location"]).query)
    assert hint["post_logout_redirect_uri"] == [f"{person.origin}/oauth2/signed_out"]
    assert not person.session
    again = person.http.get("/console/api/apps", headers={"Cookie": f"{COOKIE}={session}"})
    assert again.status_code == 401
    assert person.page("/oauth2/signed_out").status_code == 200


@pytest.mark.parametrize("claims", [{"nonce": "x"}, {"aud": "x"}, {"iss": "https://x.example"}, {"exp": 1}])
def test_a_forged_id_token_opens_nothing(browser: Browser, claims: dict[str, Any]) -> None:
    browser.provider.claims = claims
    try:
        answer = browser.sign_in()
    finally:
        browser.provider.claims = {}

    assert answer.status_code == 400
    assert not browser.session


@pytest.mark.parametrize("what", ["gateway", "redis"])
def test_without_an_answer_of_the_gateway_nothing_passes(person: Browser, what: str) -> None:
    container = getattr(person.oauth.gateway, what)
    container.stop(timeout=5)
    try:
        for answer in (
            person.page("/apps"),
            person.http.get("/console/api/apps", headers={"Origin": ALLOWED}),
        ):
            assert answer.status_code == 503, answer.text
            assert answer.headers["retry-after"]
            assert answer.json()["code"] == "service_unavailable"
        assert answer.headers["access-control-allow-origin"] == ALLOWED
        # Without a cookie there is nothing to ask.
        assert httpx.get(f"{person.origin}/console/api/apps").status_code == 401
        assert person.http.post(CHAT, headers={"Authorization": "Bearer app-A1b2C3d4"}).status_code == 200
    finally:
        container.start()
    started = time.monotonic()
    while (status := person.http.get("/console/api/apps").status_code) != 200:
        assert time.monotonic() - started < WELL_SECONDS, f"still {status}"
        time.sleep(0.1)
