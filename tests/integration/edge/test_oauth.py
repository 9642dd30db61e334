"""OAuth at the edge: nginx as rendered, the gateway and Redis are real; Dify is the echoing upstream."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Self

import httpx
import pytest

from support.gateway import SECRET
from tests.integration.edge.container import ALLOWED
from tests.integration.edge.oauth import CHAT, INVALID, OAuthEdge, app_key, configuration, seen
from tests.unit.gateway.hostile import CASES

KEY = "app-" + "A1b2C3d4E5f6G7h8I9j0K1l2"
# An introspection result is cached for 4 s at most, and the gateway reads a new configuration twice a second.
REVOKED_SECONDS = 5.0
WELL_SECONDS = 60.0
FORM = {"grant_type": "client_credentials", "client_id": "acme-app", "client_secret": SECRET}


def test_a_token_becomes_the_tenants_key(oauth: OAuthEdge) -> None:
    token = oauth.token()
    claimed = {f"X-Auth-{name}": "admin" for name in ("Sub", "Tenant", "Scopes", "Limits", "Upstream")}
    for _ in ("asked", "from the cache"):
        answer = oauth.ask(token, headers=claimed, json={"query": "x"})

        received = seen(answer)
        assert answer.status_code == 200
        assert received["Authorization"] == f"Bearer {app_key('acme')}"
        assert {name: value for name, value in received.items() if name.startswith("X-Auth-")} == {
            "X-Auth-Sub": "acme-app",
            "X-Auth-Tenant": "acme",
        }
        assert token not in answer.text
        assert app_key("acme") not in str(answer.headers)
        assert json.loads(answer.text)["length"] == len('{"query":"x"}')
    entry = json.loads(oauth.edge.logged(answer.headers["x-request-id"]))
    assert (entry["tenant"], entry["client_id"]) == ("acme", "acme-app")


def test_tokens_of_two_tenants_never_get_each_others_key(oauth: OAuthEdge) -> None:
    tokens = {tenant: [oauth.token(tenant) for _ in range(10)] for tenant in ("acme", "globex")}
    pairs = [(tenant, token) for tenant, made in tokens.items() for token in made for _ in range(8)]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda pair: (pair[0], oauth.ask(pair[1])), pairs))

    for tenant, answer in answers:
        assert answer.status_code == 200
        assert seen(answer)["Authorization"] == f"Bearer {app_key(tenant)}"


@pytest.mark.parametrize(
    "authorization",
    [f"Bearer {KEY}", "Bearer dataset-0123456789abcdef", "Bearer junk", "Bearer one.dot", "Basic eDp5", ""],
)
def test_everything_else_is_for_dify_to_judge(oauth: OAuthEdge, authorization: str) -> None:
    headers = {"Authorization": authorization, "X-Auth-Sub": "admin"} if authorization else {}

    answer = oauth.http.get("/v1/info", headers=headers)

    assert answer.headers["x-from-upstream"] == "1"
    assert answer.status_code == 401
    assert seen(answer).get("Authorization", "") == authorization
    assert not [name for name in seen(answer) if name.lower().startswith("x-auth-")]


# What nginx refuses by itself.
BROKEN = {"null byte behind", "much too long"}
# What is another header, or a right one, once nginx has read it: white space around, a line that ends early.
READ_OTHERWISE = {"space in front", "newline behind", "newline inside"}


@pytest.mark.parametrize("name", sorted(set(CASES) - BROKEN - READ_OTHERWISE))
def test_hostile_token(oauth: OAuthEdge, name: str) -> None:
    value = CASES[name](oauth.forge()).encode()

    answer = oauth.raw_refused(value)

    if value.count(b".") < 2:
        # Not an OAuth token: Dify receives it unchanged, and no tenant's key.
        assert seen(answer.response)["Authorization"].encode("latin-1") == value.strip()
        return
    assert answer.status == 401, answer.everything
    assert answer.response.json() == INVALID
    assert answer.response.headers.get_list("www-authenticate") == ['Bearer error="invalid_token"']
    assert b"X-From-Upstream" not in answer.everything


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_broken_header_is_refused_by_nginx(oauth: OAuthEdge, name: str) -> None:
    answer = oauth.raw(CASES[name](oauth.forge()).encode())

    assert not [status for status in answer.statuses if status not in {400, 431}]
    assert b"X-From-Upstream" not in answer.everything


def test_a_line_that_ends_early_is_no_token(oauth: OAuthEdge) -> None:
    answer = oauth.raw(CASES["newline inside"](oauth.forge()).encode())

    assert b"app-" not in answer.everything


@pytest.mark.parametrize(
    "fields",
    [
        b"Authorization: Bearer %s\r\nAuthorization: Bearer %s",
        b"Authorization: Bearer %s\r\nauthorization: Bearer app-0123456789abcdef",
        b"Authorization: Bearer app-0123456789abcdef\r\nAuthorization: Bearer %s",
    ],
)
def test_two_credentials_are_none(oauth: OAuthEdge, fields: bytes) -> None:
    token = oauth.token().encode()
    given = fields.replace(b"%s", token)
    sent = b"GET /v1/info HTTP/1.1\r\nHost: dify.test\r\nConnection: close\r\n" + given + b"\r\n\r\n"

    answer = oauth.edge.raw(sent)

    assert answer.status == 400
    assert b"X-From-Upstream" not in answer.everything


@pytest.mark.parametrize(
    "path",
    [
        "/v1/conversations",
        "//v1/chat-messages",
        "/v1//chat-messages",
        "/v1/chat-messages/",
        "/v1/chat-messages//stop",
        "/v1/chat%2Dmessages",
        "/v1/chat-messages%2F..%2Fconversations",
        "/v1%2Fchat-messages",
        "/v1/%63hat-messages",
        "/v1/chat-messages%00",
        "/v1/chat-messages%3Fx",
        "/v1/chat-messages;x=1",
        "/v1/chat-messages.",
        "/v1/chat-messages/a.b/stop",
        "/v1/chat-messages/a%2Fb/stop",
        "/v1/chat-messages/../conversations",
        "/v1/%2e%2e/v1/conversations",
        "/v1/./chat-messages",
        "/v1/chat-messages/%2e%2e/conversations",
        "/v1/CHAT-MESSAGES",
        "/v1/chat-messages\\x",
        "/v1/datasets",
        "/v1/apps/annotations",
        "/v1/app/feedbacks",
        "/v1/",
        "/v1",
        "http://dify.test/v1/conversations",
    ],
)
def test_path_that_the_scope_does_not_open(oauth: OAuthEdge, path: str) -> None:
    answer = oauth.raw(b"Bearer " + oauth.token().encode(), path)

    assert answer.status in {400, 403, 404}
    assert b"X-From-Upstream" not in answer.everything
    if answer.status == 403:
        assert answer.response.json()["error"] == "insufficient_scope"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "post", "FOO"])
def test_method_that_the_scope_does_not_open(oauth: OAuthEdge, method: str) -> None:
    answer = oauth.raw(b"Bearer " + oauth.token().encode(), method=method)

    assert answer.status in {400, 403, 405}
    assert b"X-From-Upstream" not in answer.everything


def test_overriding_the_method_changes_nothing(oauth: OAuthEdge) -> None:
    more = b"X-HTTP-Method-Override: POST\r\nX-Original-URL: /v1/chat-messages\r\n"

    answer = oauth.raw(b"Bearer " + oauth.token().encode(), "/v1/conversations", "GET", more)

    assert answer.status == 403


def test_missing_scope_is_named(oauth: OAuthEdge) -> None:
    answer = oauth.ask(oauth.token(), "/v1/files/upload", headers={"Origin": ALLOWED})

    assert answer.status_code == 403
    assert answer.json() == {
        "error": "insufficient_scope",
        "error_description": "This request needs the scope files",
        "scope": "files",
    }
    assert answer.headers.get_list("www-authenticate") == ['Bearer error="insufficient_scope", scope="files"']
    assert answer.headers["access-control-allow-origin"] == ALLOWED
    unlisted = oauth.ask(oauth.token(), "/v1/datasets", "GET")
    assert (unlisted.status_code, unlisted.json()["scope"]) == (403, "")
    assert unlisted.headers.get_list("www-authenticate") == ['Bearer error="insufficient_scope"']
    # The same introspection result on another route.
    assert oauth.ask(oauth.token(scope="chat files"), "/v1/files/upload").status_code == 200


def test_open_route_with_query_and_segment(oauth: OAuthEdge) -> None:
    token = oauth.token()

    assert oauth.ask(token, "/v1/chat-messages/5ad4cb98-f0c7-4085-b384-88c403be6290/stop").status_code == 200
    answer = oauth.ask(token, "/v1/parameters?user=..%2f&x=//", "GET")
    assert json.loads(answer.text)["path"] == "/v1/parameters?user=..%2f&x=//"


def test_preflight_needs_no_token(oauth: OAuthEdge) -> None:
    asked = {"Origin": ALLOWED, "Access-Control-Request-Method": "POST"}

    assert oauth.http.options(CHAT, headers=asked).status_code == 204


def test_a_stream_is_not_held_back(oauth: OAuthEdge) -> None:
    headers = {"Authorization": f"Bearer {oauth.token('two-open', 'workflows')}"}
    with oauth.http.stream("GET", "/v1/workflows/run/stream", headers=headers) as answer:
        late = [
            time.time() - json.loads(line.removeprefix("data: "))["sent"]
            for line in answer.iter_lines()
            if line.startswith("data: ")
        ]

    assert len(late) == 5
    # Held back, the first would come with the last, 0.8 s later.
    assert max(late) < 0.4


def test_a_new_token_with_a_large_body(oauth: OAuthEdge) -> None:
    body = b"x" * 300_000

    answer = oauth.ask(oauth.token(), content=body)

    assert json.loads(answer.text)["length"] == len(body)


def test_tokens_of_a_tenant_share_its_limit(oauth: OAuthEdge) -> None:
    tokens = [oauth.token("five") for _ in range(2)]

    found = [oauth.ask(tokens[number % 2]) for number in range(10)]

    assert [one.status_code for one in found] == [200] * 5 + [429] * 5
    assert found[-1].json() == {"error": "rate_limit_exceeded", "retry_after": 13}
    assert found[-1].headers["retry-after"] == "13"
    # Another tenant has a bucket of its own, in the same zone.
    assert [oauth.ask(oauth.token("also-five")).status_code for _ in range(6)] == [200] * 5 + [429]
    assert oauth.ask(oauth.token()).status_code == 200


def test_requests_of_a_tenant_at_the_same_time(oauth: OAuthEdge) -> None:
    tokens = [oauth.token("two-open", "workflows") for _ in range(3)]

    def ask(number: int) -> int:
        return oauth.ask(tokens[number % 3], "/v1/workflows/run/slow", "GET").status_code

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(ask, range(6)))

    assert sorted(found) == [200] * 2 + [429] * 4
    assert oauth.ask(oauth.token()).status_code == 200


def test_expired_soon_after(oauth: OAuthEdge) -> None:
    now = int(time.time())
    token = oauth.token(exp=now + 3)
    assert oauth.ask(token).status_code == 200

    while time.time() < now + 3.05:
        time.sleep(0.05)

    assert oauth.ask(token).status_code == 401


def test_revoked_within_five_seconds(oauth: OAuthEdge) -> None:
    token = oauth.token()
    assert oauth.ask(token).status_code == 200
    form = {"token": token, "client_id": "acme-app", "client_secret": SECRET}

    assert oauth.http.post("/oauth/revoke", data=form).status_code == 200

    assert oauth.until(401, token, 8) <= REVOKED_SECONDS


def test_client_that_is_removed(oauth: OAuthEdge) -> None:
    token = oauth.token("globex")
    assert oauth.ask(token).status_code == 200
    files = configuration()
    del files["clients.json"]["clients"]["globex-app"]

    revision = oauth.gateway.switch(files)
    try:
        oauth.gateway.wait(revision)
        assert oauth.until(401, token, 8) <= REVOKED_SECONDS
    finally:
        oauth.gateway.wait(oauth.gateway.switch(configuration()))


def test_the_flow_of_the_article(oauth: OAuthEdge) -> None:
    form = FORM

    issued = oauth.http.post("/oauth/token", data=form)

    assert issued.status_code == 200
    assert issued.json()["expires_in"] == 3600
    assert oauth.ask(issued.json()["access_token"]).status_code == 200
    wrong = oauth.http.post(
        "/oauth/token", data={**form, "client_secret": "wrong"}, headers={"Origin": ALLOWED}
    )
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
    assert "access-control-allow-origin" not in wrong.headers
    metadata = oauth.http.get("/.well-known/oauth-authorization-server").json()
    assert metadata["token_endpoint"].endswith("/oauth/token")
    large = oauth.http.post("/oauth/token", data={**form, "x": "y" * 20_000})
    assert (large.status_code, large.json()["error"]) == (413, "invalid_request")


@pytest.mark.parametrize(
    "path",
    [
        "/verify",
        "/_oauth_verify",
        "/oauth/verify",
        "/oauth/..%2fverify",
        "/oauth//verify",
        "//verify",
        "/oauth/healthz",
    ],
)
def test_the_token_check_is_internal(oauth: OAuthEdge, path: str) -> None:
    answer = oauth.raw(b"Bearer " + oauth.token().encode(), path, "GET")

    assert b"X-Auth-" not in answer.everything.partition(b"\r\n\r\n")[0]
    assert app_key("acme").encode() not in answer.everything


def test_a_thousand_new_tokens_from_one_address(oauth: OAuthEdge) -> None:
    tokens = [oauth.token() for _ in range(1000)]

    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda token: oauth.ask(token).status_code, tokens))

    assert set(found) == {200}


def test_repeated_failures_are_limited_and_good_tokens_are_not(oauth: OAuthEdge) -> None:
    good = oauth.token()
    bad = [oauth.token(jti=str(number)) + "x" for number in range(300)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(oauth.ask, bad))

    found = [answer.status_code for answer in answers]
    assert set(found) == {401, 429}
    limited = next(answer for answer in answers if answer.status_code == 429)
    assert limited.json() == {"error": "rate_limit_exceeded", "retry_after": 1}
    assert limited.headers["retry-after"] == "1"
    assert oauth.ask(good).status_code == 200
    assert oauth.ask(oauth.token()).status_code == 200


def test_wrong_secrets_are_limited_whatever_address_is_claimed(oauth: OAuthEdge) -> None:
    limit = configuration()["config.json"]["limits"]["failures_per_client"]
    form = {**FORM, "client_id": "also-five-client", "client_secret": "wrong"}

    def guess(number: int) -> httpx.Response:
        claimed = f"203.0.113.{number}"
        headers = {"X-Forwarded-For": claimed, "X-Real-IP": claimed, "Forwarded": f"for={claimed}"}
        return oauth.http.post("/oauth/token", data=form, headers=headers)

    answers = [guess(number) for number in range(limit + 2)]

    assert [answer.status_code for answer in answers] == [401] * limit + [429] * 2
    assert answers[-1].json()["error"] == "rate_limit_exceeded"
    assert 0 < int(answers[-1].headers["retry-after"]) <= 60
    # Others at that address go on.
    assert oauth.http.post("/oauth/token", data=FORM).status_code == 200


def revoked_token(oauth: OAuthEdge) -> str:
    """Return a revoked token."""
    token = oauth.token()
    oauth.revoke(token)
    # 429 after the refused ones of the test before.
    assert oauth.ask(token).status_code in {401, 429}
    return token


def unfit_503(answer: httpx.Response) -> list[str]:
    """Return what is wrong with a 503 of the token endpoint: it says when to come again, in RFC 6749's shape."""
    right = answer.headers.get("retry-after") and answer.json().get("error") == "temporarily_unavailable"
    return [] if right else [f"token endpoint: {answer.headers} {answer.text}"]


class Load(AbstractContextManager["Load"]):
    """Calls with tokens and with an API key, and new tokens, again and again, until it is stopped.

    `no_token` counts what the token endpoint answered with 503.
    """

    def __init__(self, oauth: OAuthEdge) -> None:
        self.oauth = oauth
        self.problems: list[str] = []
        self.refused = self.no_token = 0
        self.stopping = threading.Event()
        # Only Redis knows that the one is revoked.
        self.bad = [oauth.token() + "x", revoked_token(oauth)]
        work = (self._tokens, self._tokens, self._keys, self._issue)
        self.threads = [threading.Thread(target=one) for one in work]

    def __enter__(self) -> Self:
        """Begin."""
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and wait for what is under way."""
        self.stopping.set()
        for thread in self.threads:
            thread.join(timeout=20)

    def _tokens(self) -> None:
        while not self.stopping.is_set():
            started = time.monotonic()
            good = self.oauth.ask_once(self.oauth.token())
            if good.status_code not in {200, 503}:
                self.problems.append(f"good token: {good.status_code}")
            for number, bad in enumerate(self.bad):
                status = self.oauth.ask_once(bad).status_code
                if status not in {401, 429, 503}:
                    self.problems.append(f"bad token {number}: {status}")
            if good.status_code == 503:
                self.refused += 1
                if not good.headers.get("retry-after") or good.json()["code"] != "service_unavailable":
                    self.problems.append(good.text)
                # Three calls, each of which may wait two seconds; the rest is for a busy machine.
                if time.monotonic() - started > 8:
                    self.problems.append("too slow")

    def _issue(self) -> None:
        while not self.stopping.is_set():
            answer = self.oauth.http.post("/oauth/token", data=FORM)
            if answer.status_code == 503:
                self.no_token += 1
                self.problems += unfit_503(answer)
            elif answer.status_code != 200:
                self.problems.append(f"token endpoint: {answer.status_code} {answer.text}")
            time.sleep(0.02)

    def _keys(self) -> None:
        while not self.stopping.is_set():
            answer = self.oauth.http.post(CHAT, headers={"Authorization": f"Bearer {KEY}"})
            if answer.status_code != 200:
                self.problems.append(f"API key: {answer.status_code}")
            time.sleep(0.02)


@pytest.mark.parametrize("which", ["gateway", "redis"])
def test_killed_under_load(oauth: OAuthEdge, which: str) -> None:
    container = getattr(oauth.gateway, which)
    with Load(oauth) as load:
        time.sleep(0.5)
        container.kill()
        oauth.until(503, oauth.token(), 8)
        time.sleep(1)
        container.start()
        took = oauth.until(200, oauth.token(), WELL_SECONDS)
        oauth.until_issued(FORM, WELL_SECONDS - took)
        time.sleep(0.5)

    assert load.problems == []
    assert load.refused > 0
    assert load.no_token > 0
    assert took < WELL_SECONDS


@pytest.mark.parametrize("which", ["gateway", "redis"])
def test_restarted_under_load(oauth: OAuthEdge, which: str) -> None:
    with Load(oauth) as load:
        time.sleep(0.5)
        getattr(oauth.gateway, which).restart(timeout=5)
        took = oauth.until(200, oauth.token(), WELL_SECONDS)
        oauth.until_issued(FORM, WELL_SECONDS - took)
        time.sleep(0.5)

    assert load.problems == []
    assert took < WELL_SECONDS


def test_a_gateway_that_hangs(oauth: OAuthEdge) -> None:
    def timed(send: Callable[[], httpx.Response]) -> tuple[httpx.Response, float]:
        started = time.monotonic()
        return send(), time.monotonic() - started

    oauth.gateway.gateway.pause()
    try:
        with ThreadPoolExecutor(3) as pool:
            asked = pool.submit(timed, lambda: oauth.http.post("/oauth/token", data=FORM))
            metadata = pool.submit(timed, lambda: oauth.http.get("/.well-known/oauth-authorization-server"))
            answer, took = timed(lambda: oauth.ask_once(oauth.token()))
            key = oauth.http.post(CHAT, headers={"Authorization": f"Bearer {KEY}"})
        issued, waited = asked.result()
    finally:
        oauth.gateway.gateway.unpause()

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    # It waits for two seconds, or five; the rest is for a busy machine.
    assert took < 4
    assert key.status_code == 200
    assert (issued.status_code, issued.headers["retry-after"]) == (503, "5")
    assert issued.json()["error"] == "temporarily_unavailable"
    assert waited < 7
    assert (metadata.result()[0].status_code, metadata.result()[0].headers["retry-after"]) == (503, "5")
    oauth.until(200, oauth.token(), WELL_SECONDS)
    oauth.until_issued(FORM, WELL_SECONDS)


def test_no_token_and_no_key_is_in_a_log(oauth: OAuthEdge) -> None:
    token = oauth.token()
    accepted = oauth.ask(token, "/v1/parameters?x=1", "GET")
    refused = oauth.ask(token + "x")

    for answer in (accepted, refused):
        oauth.edge.logged(answer.headers["x-request-id"])
    logs = oauth.edge.nginx.logs().decode()

    for secret in (token, token.rpartition(".")[2], app_key("acme")):
        assert secret not in logs
