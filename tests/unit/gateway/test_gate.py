"""The gate of console and web app: sign-in with a real provider over HTTP, and everything that must not pass."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from werkzeug.test import Client, TestResponse

from dify_gateway import config, gate, internal, public
from dify_gateway.reading import FileError
from support.gateway import documents
from support.tokens import rs256
from tests.unit.gateway import provider as providers
from tests.unit.gateway.provider import CLIENT, SECRET, Provider
from tests.unit.gateway.world import World, make_world

ORIGIN = "https://dify.example.com"
OTHER = "https://app.example.com"
COOKIE = "__Host-dify_gate"


@pytest.fixture
def provider() -> Iterator[Provider]:
    with providers.running() as one:
        yield one


@dataclass
class Gated:
    """A gateway with a gate, and a browser before it."""

    world: World
    provider: Provider
    browser: Client

    def get(self, path: str, origin: str = ORIGIN, **headers: str) -> TestResponse:
        return self.browser.get(path, base_url=origin, headers=headers)

    def start(self, path: str = "/apps", origin: str = ORIGIN) -> str:
        """Begin to sign in; return the provider's address."""
        answer = self.get(f"/oauth2/start?rd={path}", origin)
        assert answer.status_code == 302, answer.text
        return str(answer.location)

    def sign_in(self, path: str = "/apps", origin: str = ORIGIN) -> TestResponse:
        """Sign in, up to the answer to the callback."""
        return self.back(self.provider.authorize(self.start(path, origin)))

    def back(self, address: str) -> TestResponse:
        parts = urlsplit(address)
        return self.get(f"{parts.path}?{parts.query}", f"{parts.scheme}://{parts.netloc}")

    def cookie(self, origin: str = ORIGIN) -> str:
        found = self.browser.get_cookie(COOKIE, domain=str(urlsplit(origin).hostname))
        return found.value if found else ""

    def check(self, session: str | None) -> tuple[int, dict[str, str]]:
        """Ask what nginx asks."""
        environ: dict[str, Any] = {"PATH_INFO": "/gate", "REQUEST_METHOD": "GET"}
        if session is not None:
            environ["HTTP_X_GATE_SESSION"] = session
        started: list[tuple[int, dict[str, str]]] = []
        application = internal.create_app(self.world.service)
        b"".join(
            application(environ, lambda status, headers: started.append((int(status[:3]), dict(headers))))
        )
        return started[0]


def settings(provider: Provider, **changes: Any) -> dict[str, Any]:
    """Return `gate` of config.json."""
    return {
        "origins": [ORIGIN, OTHER],
        "issuer": provider.url,
        "client_id": CLIENT,
        "client_secret": SECRET,
        **changes,
    }


def files(provider: Provider, **changes: Any) -> dict[str, Any]:
    found = documents()
    found["config.json"]["gate"] = settings(provider, **changes)
    return found


@pytest.fixture
def gated(provider: Provider, tmp_path: Path) -> Callable[..., Gated]:
    def make(**changes: Any) -> Gated:
        world = make_world(tmp_path / "config", files(provider, **changes))
        assert world.service.problems() == [f"gate: issuer {provider.url}: no current keys"]
        return Gated(world, provider, Client(public.create_app(world.service)))

    return make


def test_somebody_signs_in_and_comes_back_to_the_page(gated: Callable[..., Gated]) -> None:
    one = gated()
    asked = parse_qs(urlsplit(one.start("/app/1/overview?a=b&c=%2F")).query)
    assert asked["response_type"] == ["code"]
    assert asked["scope"] == ["openid email profile"]
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["redirect_uri"] == [f"{ORIGIN}/oauth2/callback"]
    assert len(asked["state"][0]) >= 20
    assert len(asked["nonce"][0]) >= 20

    answer = one.sign_in("/app/1/overview?a=b&c=%2F")

    assert (answer.status_code, answer.location) == (302, f"{ORIGIN}/app/1/overview?a=b&c=%2F")
    assert answer.headers["cache-control"] == "no-store"
    (cookie,) = [line for line in answer.headers.get_all("set-cookie") if line.startswith(f"{COOKIE}=")]
    parts = {part.strip() for part in cookie.split(";")[1:]}
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax", "Max-Age=28800"} <= parts
    assert not [part for part in parts if part.startswith("Domain")]
    status, headers = one.check(one.cookie())
    assert (status, headers["X-Gate-User"]) == (200, "person-1")
    assert headers["Cache-Control"] == "no-store"
    body = one.get("/oauth2/userinfo").json
    assert body
    assert (body["user"], body["email"]) == ("person-1", "ann@example.com")
    # Redis has no cookie's value.
    kept = json.dumps(
        [[key.decode(), str(one.world.redis.get(key))] for key in one.world.redis.keys("*gate*")]
    )
    assert one.cookie() not in kept


def test_the_cookie_of_the_sign_in_is_gone_after_it(gated: Callable[..., Gated]) -> None:
    one = gated()
    one.sign_in()

    names = {cookie.key for cookie in (one.browser._cookies or {}).values()}
    assert names == {COOKIE}


def test_two_tabs_sign_in_at_the_same_time(gated: Callable[..., Gated], provider: Provider) -> None:
    one = gated()
    first, second = one.start("/apps"), one.start("/datasets")

    later = one.back(provider.authorize(second))
    earlier = one.back(provider.authorize(first))

    assert (later.location, earlier.location) == (f"{ORIGIN}/datasets", f"{ORIGIN}/apps")


def test_each_host_has_its_own_callback(gated: Callable[..., Gated]) -> None:
    one = gated()
    answer = one.sign_in(origin=OTHER)

    assert answer.location == f"{OTHER}/apps"
    assert one.cookie(OTHER)
    assert not one.cookie(ORIGIN)


def test_a_host_that_is_not_listed_is_led_to_the_first_one(gated: Callable[..., Gated]) -> None:
    one = gated()
    answer = one.get("/oauth2/start?rd=/apps", "https://elsewhere.example.com")

    assert answer.location == f"{ORIGIN}/oauth2/start?rd=/apps"
    assert one.get("/oauth2/callback?code=1&state=2", "https://elsewhere.example.com").status_code == 404


def test_plain_http_has_a_plain_cookie(gated: Callable[..., Gated]) -> None:
    origin = "http://localhost:8080"
    one = gated(origins=[origin])
    answer = one.sign_in(origin=origin)

    (cookie,) = [line for line in answer.headers.get_all("set-cookie") if line.startswith("dify_gate=")]
    assert "Secure" not in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


HOSTILE_PATHS = [
    "https://evil.example/",
    "//evil.example/",
    "/\\evil.example/",
    "\\\\evil.example",
    "/%09/evil.example".replace("%09", "\t"),
    "javascript:alert(1)",
    "evil.example",
    "",
    "/" + "a" * 3000,
    "/a\\b",
    "/oauth2/sign_out",
    "///evil.example",
]


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_nobody_is_led_to_another_site(path: str) -> None:
    assert gate.local_path(f"rd={path}") == "/"


@pytest.mark.parametrize("query", ["", "next=//evil.example", "x=1&rd=/apps", "rd%3D/apps"])
def test_no_path_is_the_first_page(query: str) -> None:
    assert gate.local_path(query) == "/"


@pytest.mark.parametrize("path", ["//evil.example/", "https://evil.example", "/\\evil.example"])
def test_a_sign_in_never_ends_elsewhere(gated: Callable[..., Gated], path: str) -> None:
    assert gated().sign_in(path).location == f"{ORIGIN}/"


def forged(key: bytes) -> Callable[[bytes], bytes]:
    return lambda data: hmac.new(key, data, hashlib.sha256).digest()


def change(**claims: Any) -> Callable[[Provider], None]:
    def apply(provider: Provider) -> None:
        provider.claims = claims

    return apply


def header(**members: Any) -> Callable[[Provider], None]:
    def apply(provider: Provider) -> None:
        provider.header = members

    return apply


def unsigned(provider: Provider) -> None:
    provider.header, provider.sign = {"alg": "none", "kid": ...}, lambda _: b""


def unsigned_but_not_empty(provider: Provider) -> None:
    provider.header, provider.sign = {"alg": "none"}, lambda _: b"x"


def with_the_client_secret(provider: Provider) -> None:
    provider.header, provider.sign = {"alg": "HS256", "kid": ...}, forged(SECRET.encode())


def with_the_public_key(provider: Provider) -> None:
    provider.header = {"alg": "HS256"}
    provider.sign = forged(providers.KEY.public_key().public_numbers().n.to_bytes(256, "big"))


def with_another_key(provider: Provider) -> None:
    provider.sign = lambda data: rs256(providers.OTHER_KEY, data)


def without(provider: Provider) -> None:
    provider.without_id_token = True


NOW = int(time.time())
FORGED: dict[str, Callable[[Provider], None]] = {
    "wrong nonce": change(nonce="another"),
    "no nonce": change(nonce=...),
    "nonce is no text": change(nonce=["another"]),
    "nonce said not to be supported": change(nonce="another", nonce_supported=False),
    "wrong audience": change(aud="another-client"),
    "wrong audience with our azp": change(aud="another-client", azp=CLIENT),
    "no audience": change(aud=...),
    "made for two, by the other": change(aud=[CLIENT, "another"], azp="another"),
    "made for two, by nobody": change(aud=[CLIENT, "another"]),
    "azp of another": change(azp="another"),
    "wrong issuer": change(iss="https://evil.example"),
    "issuer with a slash": change(iss="http://127.0.0.1/"),
    "no issuer": change(iss=...),
    "expired": change(exp=NOW - 3600),
    "no expiry": change(exp=...),
    "expiry is a text": change(exp=str(NOW + 300)),
    "from the future": change(iat=NOW + 3600),
    "no iat": change(iat=...),
    "not yet": change(nbf=NOW + 3600),
    "of another access token": change(at_hash="AAAAAAAAAAAAAAAAAAAAAA"),
    "a refresh token": change(typ="Refresh"),
    "alg none": unsigned,
    "alg none with something": unsigned_but_not_empty,
    "HS256 with the client's secret": with_the_client_secret,
    "HS256 with the public key": with_the_public_key,
    "another key": with_another_key,
    "unknown kid": header(kid="unknown"),
    "an access token's type": header(typ="at+jwt"),
    "crit": header(crit=["exp"]),
    "none at all": without,
}


@pytest.mark.parametrize("name", sorted(FORGED))
def test_a_forged_id_token_opens_nothing(gated: Callable[..., Gated], provider: Provider, name: str) -> None:
    one = gated()
    FORGED[name](provider)

    answer = one.sign_in()

    assert answer.status_code == 400, answer.text
    assert not one.cookie()
    assert not one.world.redis.keys("*session*")


def test_the_same_provider_without_forgery_opens(gated: Callable[..., Gated]) -> None:
    # Otherwise the cases above would prove nothing.
    assert gated().sign_in().status_code == 302


@pytest.mark.parametrize(
    "spoil",
    [
        lambda address: address.replace("state=", "state=x"),
        lambda address: address.replace("state=", "other="),
        lambda address: address.replace("iss=", "iss=https://evil.example/"),
    ],
)
def test_an_answer_to_no_question_opens_nothing(
    gated: Callable[..., Gated], provider: Provider, spoil: Callable[[str], str]
) -> None:
    one = gated()
    address = provider.authorize(one.start())

    assert one.back(spoil(address)).status_code == 400
    assert not provider.token_requests
    assert not one.cookie()


def test_an_answer_counts_in_the_browser_that_asked(gated: Callable[..., Gated], provider: Provider) -> None:
    one = gated()
    address = provider.authorize(one.start())
    victim = Gated(one.world, provider, Client(public.create_app(one.world.service)))

    assert victim.back(address).status_code == 400
    assert not victim.cookie()
    assert not provider.token_requests


def test_an_answer_counts_once(gated: Callable[..., Gated], provider: Provider) -> None:
    one = gated()
    address = provider.authorize(one.start())

    assert one.back(address).status_code == 302
    assert one.back(address).status_code == 400
    assert len(provider.token_requests) == 1


def test_a_code_of_another_sign_in_is_refused(gated: Callable[..., Gated], provider: Provider) -> None:
    one = gated()
    stolen = parse_qs(urlsplit(provider.authorize(one.start())).query)["code"][0]
    own = provider.authorize(one.start())
    code = parse_qs(urlsplit(own).query)["code"][0]

    # PKCE: the code was asked for with another verifier.
    assert one.back(own.replace(code, stolen)).status_code == 400


def test_what_the_provider_refuses_is_said_without_its_words(gated: Callable[..., Gated]) -> None:
    answer = gated().get("/oauth2/callback?error=access_denied&error_description=<script>x</script>&state=1")

    assert answer.status_code == 400
    assert "script" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


ALLOWED = [
    ({"email_domains": ["example.com"]}, {}, 302),
    ({"email_domains": ["example.com"]}, {"email": "ann@EXAMPLE.com"}, 302),
    ({"email_domains": ["example.com"]}, {"email_verified": ...}, 302),
    ({"email_domains": ["example.com"]}, {"email_verified": False}, 403),
    ({"email_domains": ["example.com"]}, {"email_verified": "false"}, 403),
    ({"email_domains": ["example.com"]}, {"email": "ann@evil-example.com"}, 403),
    ({"email_domains": ["example.com"]}, {"email": "ann@example.com.evil.org"}, 403),
    ({"email_domains": ["example.com"]}, {"email": "ann@evil.org@example.com"}, 403),
    ({"email_domains": ["example.com"]}, {"email": '"ann@evil.org"@example.com'}, 403),
    ({"email_domains": ["example.com"]}, {"email": "@example.com"}, 403),
    ({"email_domains": ["example.com"]}, {"email": "ann@evil.org@example.com "}, 403),
    ({"email_domains": ["example.com"]}, {"email": "@example.com"}, 403),
    ({"email_domains": ["example.com"]}, {"email": ["ann@example.com"]}, 403),
    ({"email_domains": ["example.com"]}, {"email": ...}, 403),
    ({"allowed_groups": ["ops"]}, {"groups": ["dev", "ops"]}, 302),
    ({"allowed_groups": ["ops"]}, {"groups": "ops"}, 302),
    ({"allowed_groups": ["ops"]}, {"groups": ["OPS", "op", "ops "]}, 403),
    ({"allowed_groups": ["ops"]}, {"groups": {"ops": True}}, 403),
    ({"allowed_groups": ["ops"]}, {}, 403),
    (
        {"allowed_groups": ["ops"], "groups_claim": ["realm_access", "roles"]},
        {"realm_access": {"roles": ["ops"]}},
        302,
    ),
    ({"allowed_groups": ["ops"], "email_domains": ["example.com"]}, {"groups": ["dev"]}, 403),
    ({"allowed_groups": ["ops"], "email_domains": ["example.org"]}, {"groups": ["ops"]}, 403),
    ({}, {"sub": ...}, 403),
    ({}, {"sub": "a\nb"}, 403),
]


@pytest.mark.parametrize(("rules", "claims", "status"), ALLOWED)
def test_who_may_pass(
    gated: Callable[..., Gated],
    provider: Provider,
    rules: dict[str, Any],
    claims: dict[str, Any],
    status: int,
) -> None:
    one = gated(**rules)
    provider.claims = claims

    answer = one.sign_in()

    assert answer.status_code == status, answer.text
    assert bool(one.cookie()) == (status == 302)


def test_what_the_id_token_lacks_is_asked_for(gated: Callable[..., Gated], provider: Provider) -> None:
    one = gated(allowed_groups=["ops"])
    provider.userinfo = {"sub": "person-1", "groups": ["ops"]}

    assert one.sign_in().status_code == 302


def test_what_is_told_of_another_person_does_not_count(
    gated: Callable[..., Gated], provider: Provider
) -> None:
    one = gated(allowed_groups=["ops"])
    provider.userinfo = {"sub": "person-2", "groups": ["ops"]}

    assert one.sign_in().status_code == 403


# Of a secret with such characters clients and servers make different Basic headers.
@pytest.mark.parametrize("methods", [["client_secret_post"], ["client_secret_basic", "client_secret_post"]])
def test_the_secret_goes_into_the_form_where_that_is_safer(
    gated: Callable[..., Gated], provider: Provider, methods: list[str]
) -> None:
    provider.document = {"token_endpoint_auth_methods_supported": methods}

    assert gated().sign_in().status_code == 302
    assert provider.token_requests[0]["client_secret"] == SECRET
    assert not provider.token_requests[0]["authorization"]


@pytest.mark.parametrize("session", ["", None, "x", "A" * 43, "A" * 44, "../" + "A" * 40, "é" * 43])
def test_a_made_up_session_does_not_pass(gated: Callable[..., Gated], session: str | None) -> None:
    one = gated()
    one.sign_in()

    assert one.check(session)[0] == 401


def test_a_session_ends_with_its_time(gated: Callable[..., Gated], monkeypatch: pytest.MonkeyPatch) -> None:
    one = gated(session_seconds=300)
    one.sign_in()
    session = one.cookie()
    assert one.check(session)[0] == 200
    (key,) = one.world.redis.keys("*session*")
    assert 0 < one.world.redis.ttl(key) <= 300

    later = time.time() + 301
    monkeypatch.setattr(time, "time", lambda: later)

    assert one.check(session)[0] == 401


def test_signing_out_ends_the_session_here_and_there(gated: Callable[..., Gated], provider: Provider) -> None:
    one = gated()
    one.sign_in()
    session = one.cookie()

    answer = one.get("/oauth2/sign_out")

    assert one.check(session)[0] == 401
    assert not one.cookie()
    address, asked = answer.location.split("?")
    sent = parse_qs(asked)
    assert address == f"{provider.url}/end-session"
    assert sent["post_logout_redirect_uri"] == [f"{ORIGIN}/oauth2/signed_out"]
    assert sent["client_id"] == [CLIENT]
    claims = sent["id_token_hint"][0].split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(claims + "=="))["sub"] == "person-1"


def test_without_an_end_at_the_provider_signing_out_ends_here(
    gated: Callable[..., Gated], provider: Provider
) -> None:
    provider.document = {"end_session_endpoint": ""}
    one = gated()
    one.sign_in()
    session = one.cookie()

    assert one.get("/oauth2/sign_out").location == f"{ORIGIN}/oauth2/signed_out"
    assert one.check(session)[0] == 401


def test_another_site_signs_nobody_out(gated: Callable[..., Gated]) -> None:
    one = gated()
    one.sign_in()

    answer = one.get("/oauth2/sign_out", **{"Sec-Fetch-Site": "cross-site"})

    assert answer.status_code == 200
    assert one.check(one.cookie())[0] == 200


def test_a_new_sign_in_ends_the_session_before(gated: Callable[..., Gated]) -> None:
    one = gated()
    one.sign_in()
    before = one.cookie()
    one.sign_in()

    assert one.cookie() != before
    assert [one.check(session)[0] for session in (before, one.cookie())] == [401, 200]


def test_other_rules_end_all_sessions(gated: Callable[..., Gated], provider: Provider) -> None:
    one = gated()
    one.sign_in()
    session = one.cookie()

    assert one.world.switch("2", files(provider, client_secret="a new secret"))
    assert one.check(session)[0] == 200, "a rotated secret ends no session"
    assert one.world.switch("3", files(provider, email_domains=["example.com"]))
    assert one.check(session)[0] == 401


def test_without_a_gate_nothing_passes(world: World, provider: Provider) -> None:
    one = Gated(world, provider, Client(public.create_app(world.service)))

    assert one.check("A" * 43)[0] == 401
    assert one.get("/oauth2/start").status_code == 404


def test_the_gate_alone_needs_no_tenants_and_issues_nothing(provider: Provider, tmp_path: Path) -> None:
    redis = documents()["config.json"]["redis"]
    alone = {"config.json": {"redis": redis, "gate": settings(provider)}}
    world = make_world(tmp_path / "config", alone)
    one = Gated(world, provider, Client(public.create_app(world.service)))

    assert one.sign_in().status_code == 302
    assert one.check(one.cookie())[0] == 200
    assert world.token().status_code == 401
    # Not even for the issuer that is not there.
    for issuer in ("", "https://dify.example.com"):
        assert world.verify(f"Bearer {world.forge.with_claims(iss=issuer)}").status == 401


def test_without_redis_nothing_passes(gated: Callable[..., Gated]) -> None:
    one = gated()
    one.sign_in()
    session = one.cookie()
    one.world.redis_server.connected = False

    assert one.check(session)[0] == 503
    ended = one.sign_in()
    assert ended.status_code == 503
    assert ended.headers["retry-after"]
    assert one.get("/oauth2/sign_out").status_code == 503

    one.world.redis_server.connected = True
    time.sleep(0.3)
    assert one.check(session)[0] == 200


def test_sign_ins_that_strangers_begin_are_kept_nowhere(gated: Callable[..., Gated]) -> None:
    one = gated()
    one.sign_in()
    before = set(one.world.redis.keys("*"))
    other = Gated(one.world, one.provider, Client(public.create_app(one.world.service)))

    # As many as four addresses could begin in ten minutes filled the count that all of them shared.
    begun = [other.get("/oauth2/start?rd=/apps").status_code for _ in range(300)]

    assert set(begun) == {302}
    assert set(one.world.redis.keys("*")) == before
    assert one.sign_in().status_code == 302


def test_a_browser_keeps_the_cookies_of_a_few_sign_ins(
    gated: Callable[..., Gated], provider: Provider
) -> None:
    one = gated()
    begun = [one.start(f"/apps/{number}{'x' * 900}") for number in range(30)]

    kept = [cookie for cookie in (one.browser._cookies or {}).values() if cookie.key.startswith(f"{COOKIE}_")]
    assert len(kept) == gate.MOST_TABS
    # Far from what nginx takes as a header.
    assert sum(len(cookie.key) + len(cookie.value) for cookie in kept) < 12_000
    # The newest still come back, the oldest are over.
    assert one.back(provider.authorize(begun[-1])).status_code == 302
    assert one.back(provider.authorize(begun[0])).status_code == 400


@pytest.mark.parametrize("change", ["cut", "flip", "plain"])
def test_a_changed_sign_in_is_none(gated: Callable[..., Gated], provider: Provider, change: str) -> None:
    one = gated()
    address = provider.authorize(one.start())
    (cookie,) = [
        cookie for cookie in (one.browser._cookies or {}).values() if cookie.key.startswith(f"{COOKIE}_")
    ]
    value = cookie.value
    changed = {
        "cut": value[:-4],
        "flip": value[:-2] + ("A" if value[-2] != "A" else "B") + value[-1],
        "plain": base64.urlsafe_b64encode(b'{"data":{},"path":"/"}').decode(),
    }[change]
    one.browser.set_cookie(cookie.key, changed, domain="dify.example.com", secure=True)

    assert one.back(address).status_code == 400
    assert not provider.token_requests


def test_a_provider_that_fails_is_a_503(gated: Callable[..., Gated], provider: Provider) -> None:
    one = gated()
    provider.token_status = 503

    assert one.sign_in().status_code == 503
    assert not one.cookie()


def test_a_provider_that_is_away_is_a_503_and_sessions_go_on(tmp_path: Path) -> None:
    with providers.running() as provider:
        world = make_world(tmp_path / "config", files(provider))
        one = Gated(world, provider, Client(public.create_app(world.service)))
        one.sign_in()
    later = Gated(
        make_world(tmp_path / "again", files(provider), server=world.redis_server), provider, one.browser
    )

    assert later.check(one.cookie())[0] == 200
    assert (
        Client(public.create_app(later.world.service)).get("/oauth2/start", base_url=ORIGIN).status_code
        == 503
    )


def test_the_log_tells_who_and_no_secret(
    gated: Callable[..., Gated], provider: Provider, capsys: pytest.CaptureFixture[str]
) -> None:
    one = gated()
    one.sign_in()
    session = one.cookie()
    one.get("/oauth2/sign_out")
    provider.claims = {"aud": "another"}
    one.sign_in()

    output = capsys.readouterr().out
    events = [json.loads(line) for line in output.splitlines()]
    assert [event["event"] for event in events if event["event"].startswith("sign")] == [
        "signed in",
        "signed out",
        "sign-in refused",
    ]
    (signed_in,) = [event for event in events if event["event"] == "signed in"]
    assert (signed_in["user"], signed_in["email"]) == ("person-1", "ann@example.com")
    for secret in (SECRET, session, *(request["code"] for request in provider.token_requests)):
        assert secret not in output


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"origins": []}, "gate.origins must be a list of origins"),
        ({"origins": ["https://a.example/path"]}, "gate.origins must contain only origins"),
        ({"origins": ["https://a.example", "http://b.example"]}, "gate.origins mixes http and https"),
        ({"issuer": "ftp://idp"}, "gate.issuer must be an http(s) URL"),
        ({"client_secret": ""}, "gate.client_secret must be the client's secret"),
        ({"scopes": ["email"]}, "gate.scopes must contain openid"),
        ({"email_domains": ["@example.com"]}, "gate.email_domains must contain texts, each a mail domain"),
        ({"email_domains": ["Example.com"]}, "gate.email_domains must contain texts"),
        ({"allowed_groups": "ops"}, "gate.allowed_groups must be a list"),
        ({"session_seconds": 10}, "gate.session_seconds must be a whole number from 300"),
        ({"ca_file": "no.pem"}, "gate.ca_file names a file that this revision lacks"),
        ({"colour": "red"}, "gate.colour is not a known key"),
    ],
)
def test_a_wrong_setting_is_named(
    provider: Provider, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    for name, content in files(provider, **changes).items():
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")

    with pytest.raises(FileError) as refused:
        config.load(tmp_path, "1")

    assert str(refused.value).startswith(f"config.json: {said}")
    assert SECRET not in str(refused.value)
