"""External issuers: whose tokens are taken, by which keys, and how keys are found and renewed."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dify_gateway import issuers
from support.gateway import ACME_KEY, GLOBEX_KEY, documents
from support.serving import served
from support.tokens import Forge, b64, compact, ps256, public_jwk, rs256
from tests.unit.gateway.hostile import CASES
from tests.unit.gateway.world import World, make_world

IDP, OTHER_IDP = "https://idp.example/realms/dify", "https://login.other.example"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
NEW_RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SMALL_RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505  # to be refused
EC_KEY = ec.generate_private_key(ec.SECP256R1())

Sign = Callable[[Any, bytes], bytes]


class Idp:
    """Issuers that answer from memory. `documents` maps addresses to JSON, or to an error to raise."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {}
        self.fetched: list[str] = []
        self.set_keys(IDP, public_jwk(RSA_KEY, "rsa-1", use="sig", alg="RS256"))
        self.set_keys(OTHER_IDP, public_jwk(EC_KEY, "ec-1"))

    def set_keys(self, issuer: str, *keys: Mapping[str, Any]) -> None:
        self.documents[f"{issuer}/.well-known/openid-configuration"] = {
            "issuer": issuer,
            "jwks_uri": f"{issuer}/certs",
            "token_endpoint": f"{issuer}/token",
        }
        self.documents[f"{issuer}/certs"] = {"keys": list(keys)}

    def fetch(self, address: str, ca_file: str) -> Mapping[str, Any]:
        assert ca_file == ""
        self.fetched.append(address)
        found = self.documents.get(address)
        if not isinstance(found, Mapping):
            raise issuers.IssuerError(f"{address} answered 404")
        return found


@pytest.fixture
def idp() -> Idp:
    return Idp()


def configured(**changes: Any) -> dict[str, Any]:
    first = {
        "issuer": IDP,
        "audience": "dify-api",
        "tenant_claim": "tenant",
        "refetch_seconds": 10,
        **changes,
    }
    return {name: value for name, value in first.items() if value is not None}


def files(**changes: Any) -> dict[str, Any]:
    all_files = documents()
    other: dict[str, Any] = {"issuer": OTHER_IDP, "audience": "dify", "tenant": "globex", "skew_seconds": 0}
    other["scope_claim"] = ["realm", "scopes"]
    all_files["config.json"]["issuers"] = [configured(**changes), other]
    return all_files


@pytest.fixture
def idp_world(tmp_path: Path, idp: Idp) -> World:
    return make_world(tmp_path / "config", files(), idp.fetch)


def token(
    header: Mapping[str, Any] | None = None,
    key: Any = RSA_KEY,
    sign: Sign = rs256,
    **claims: Any,
) -> str:
    """Return a token of the first issuer; None removes a claim."""
    now = int(time.time())
    all_claims = {
        "iss": IDP,
        "sub": "robot@example.com",
        "aud": ["account", "dify-api"],
        "azp": "robot",
        "iat": now,
        "exp": now + 300,
        "scope": "openid chat profile files",
        "tenant": "acme",
        **claims,
    }
    kept = {name: value for name, value in all_claims.items() if value is not None}
    signed = f"{b64(compact(header or {'alg': 'RS256', 'typ': 'JWT', 'kid': 'rsa-1'}))}.{b64(compact(kept))}"
    return f"Bearer {signed}.{b64(sign(key, signed.encode()))}"


def es256_raw(key: Any, data: bytes) -> bytes:
    from support.tokens import es256  # noqa: PLC0415  # its keyword does not fit Sign

    return es256(key, data, low=False)


def other_token(**claims: Any) -> str:
    """Return a token of the second issuer, signed as most libraries do: s may be the larger one."""
    defaults = {
        "iss": OTHER_IDP,
        "aud": "dify",
        "realm": {"scopes": ["chat", "x"]},
        "tenant": None,
        "scope": None,
    }
    return token({"alg": "ES256", "kid": "ec-1"}, EC_KEY, es256_raw, **{**defaults, **claims})


def test_a_token_of_an_external_issuer(idp_world: World) -> None:
    result = idp_world.verify(token())

    assert result.status == 200
    assert result.headers["X-Auth-Sub"] == "robot@example.com"
    assert result.headers["X-Auth-Tenant"] == "acme"
    assert result.headers["X-Auth-Scopes"] == "chat files"
    assert result.headers["X-Auth-Upstream"] == ACME_KEY
    assert result.headers["Cache-Control"] == "max-age=3"


def test_several_issuers_at_once(idp_world: World) -> None:
    result = idp_world.verify(other_token())

    assert (result.status, result.headers["X-Auth-Scopes"]) == (200, "chat")
    assert result.headers["X-Auth-Upstream"] == GLOBEX_KEY
    assert idp_world.verify(token()).status == 200
    assert idp_world.verify("Bearer " + idp_world.issued()).status == 200


def test_ps256(idp_world: World, idp: Idp) -> None:
    idp.set_keys(IDP, public_jwk(RSA_KEY, "rsa-1"))

    assert idp_world.verify(token({"alg": "PS256", "kid": "rsa-1"}, sign=ps256)).status == 200


@pytest.mark.parametrize("kind", ["at+jwt", "AT+JWT", "application/at+jwt", "JWT", None])
def test_types_of_access_tokens(idp_world: World, kind: str | None) -> None:
    header = {"alg": "RS256", "kid": "rsa-1"} | ({"typ": kind} if kind else {})

    assert idp_world.verify(token(header)).status == 200


def test_headers_of_no_concern_are_passed_over(idp_world: World, idp: Idp) -> None:
    """`jku` and the like are legal; they are ignored, and nothing is fetched from them."""
    header = {
        "alg": "RS256",
        "kid": "rsa-1",
        "x5t": "abc",
        "jku": "https://evil.example/keys",
        "x5u": "https://e.example",
    }

    assert idp_world.verify(token(header)).status == 200
    assert not [
        address for address in idp.fetched if "evil" in address or "e.example" in address.removeprefix(IDP)
    ]


def test_one_key_without_kid(idp_world: World) -> None:
    assert idp_world.verify(token({"alg": "RS256"})).status == 200


def test_without_a_kid_there_must_be_nothing_to_choose(idp_world: World, idp: Idp) -> None:
    idp.set_keys(IDP, public_jwk(RSA_KEY, "rsa-1"), public_jwk(NEW_RSA_KEY, "rsa-2"))

    assert idp_world.verify(token({"alg": "RS256"})).status == 401


def test_two_keys_with_one_kid_are_both_tried(idp_world: World, idp: Idp) -> None:
    idp.set_keys(IDP, public_jwk(NEW_RSA_KEY, "rsa-1"), public_jwk(RSA_KEY, "rsa-1"))

    assert idp_world.verify(token()).status == 200


REFUSED: dict[str, Callable[[], str]] = {
    "wrong audience": lambda: token(aud="other"),
    "audience missing": lambda: token(aud=None),
    "audience an object": lambda: token(aud={"dify-api": 1}),
    "audience of the other issuer": lambda: token(aud="dify"),
    "expired": lambda: token(exp=int(time.time()) - 31),
    "exp missing": lambda: token(exp=None),
    "exp a text": lambda: token(exp="tomorrow"),
    "exp true": lambda: token(exp=True),
    "nbf in the future": lambda: token(nbf=int(time.time()) + 100),
    "iat in the future": lambda: token(iat=int(time.time()) + 100),
    "tenant missing": lambda: token(tenant=None),
    "tenant unknown": lambda: token(tenant="nobody"),
    "tenant not a name": lambda: token(tenant="ACME"),
    "two tenants": lambda: token(tenant=["acme", "globex"]),
    "subject missing": lambda: token(sub=None),
    "subject with a line": lambda: token(sub="a\r\nX-Auth-Tenant: globex"),
    "subject not ASCII": lambda: token(sub="r\u00f6bot"),
    "subject too long": lambda: token(sub="x" * 256),
    "subject empty": lambda: token(sub=""),
    "ID token by its claims": lambda: token(at_hash="abc"),
    "ID token by Keycloak's word": lambda: token(typ="ID"),
    "refresh token": lambda: token(typ="Refresh"),
    "type of an ID token": lambda: token({"alg": "RS256", "kid": "rsa-1", "typ": "id+jwt"}),
    "type of a logout token": lambda: token({"alg": "RS256", "kid": "rsa-1", "typ": "logout+jwt"}),
    "type a number": lambda: token({"alg": "RS256", "kid": "rsa-1", "typ": 1}),
    "unknown issuer": lambda: token(iss="https://evil.example"),
    "issuer with a slash": lambda: token(iss=IDP + "/"),
    "issuer in other case": lambda: token(iss=IDP.upper()),
    "issuer's prefix": lambda: token(iss="https://idp.example"),
    "the other issuer's key": lambda: token({"alg": "ES256", "kid": "ec-1"}, EC_KEY, es256_raw),
    "the other issuer's token": lambda: token(iss=OTHER_IDP, aud="dify"),
    "our issuer's name": lambda: token(iss="https://dify.example.com"),
    "another algorithm of the key": lambda: token({"alg": "PS256", "kid": "rsa-1"}, sign=ps256),
    "algorithm not allowed": lambda: token({"alg": "RS512", "kid": "rsa-1"}),
    "none": lambda: token({"alg": "none", "kid": "rsa-1"}),
    "crit": lambda: token({"alg": "RS256", "kid": "rsa-1", "crit": ["exp"]}),
    "b64": lambda: token({"alg": "RS256", "kid": "rsa-1", "b64": False}),
    "kid a list": lambda: token({"alg": "RS256", "kid": ["rsa-1"]}),
    "unknown kid": lambda: token({"alg": "RS256", "kid": "rsa-9"}),
    "wrong key": lambda: token(key=NEW_RSA_KEY),
    "own key in the header": lambda: token(
        {"alg": "RS256", "kid": "rsa-1", "jwk": public_jwk(NEW_RSA_KEY, "rsa-1")}, NEW_RSA_KEY
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(idp_world: World, name: str) -> None:
    result = idp_world.verify(REFUSED[name]())

    assert result.status == 401
    assert not {header for header in result.headers if header.startswith("X-Auth")}


@pytest.mark.parametrize("name", CASES)
def test_hostile_headers_are_refused_for_an_external_issuer_as_well(idp_world: World, name: str) -> None:
    """The same forgeries in the name of an issuer whose P-256 key the forge signs with."""
    allowed = {
        # Another issuer may write these, and its library may choose either s.
        "typ JWT", "typ missing", "typ in capitals", "s the other one that fits", "unknown header", "cty JWT",
        "jku, right signature", "exp a fraction", "lives for a year", "kid missing",
        # Claims of ours that mean nothing there.
        "client in other case", "unknown client", "disabled client", "client a list", "client id missing",
        "client a number", "another tenant", "unknown tenant", "tenant missing", "tenant a list",
        "issued before the client's not_before", "jti missing", "jti empty", "jti a number", "scope missing",
        "scope a list", "scope a number", "iat missing", "subject another client",
        "audience a list with ours", "typ of an ID token",
    }  # fmt: skip
    forge = Forge(issuer=OTHER_IDP, audience="dify", kid="ec-1", client="acme-app", tenant="acme", key=EC_KEY)

    result = idp_world.verify(CASES[name](forge))

    if name not in allowed:
        assert result.status == 401
    elif result.status == 200:
        # Whatever else is in it: the tenant is the issuer's, and nothing that it does not grant is granted.
        assert (result.headers["X-Auth-Tenant"], result.headers["X-Auth-Scopes"]) == ("globex", "")


def test_clock_skew(idp_world: World) -> None:
    now = int(time.time())

    assert idp_world.verify(token(exp=now - 20)).status == 200
    assert idp_world.verify(token(nbf=now + 20, iat=now + 20)).status == 200


def test_skew_is_the_issuers_own(tmp_path: Path, idp: Idp) -> None:
    world = make_world(tmp_path / "config", files(skew_seconds=0), idp.fetch)

    assert world.verify(token(exp=int(time.time()) - 1)).status == 401


class TestMeaning:
    """What claims mean here."""

    def test_tenant_by_map(self, tmp_path: Path, idp: Idp) -> None:
        changes = {"tenants": {"Acme Corporation": "acme"}}
        world = make_world(tmp_path / "config", files(**changes), idp.fetch)

        assert world.verify(token(tenant="Acme Corporation")).headers["X-Auth-Tenant"] == "acme"
        # With a map, the name of a tenant itself is no value of it.
        assert world.verify(token(tenant="globex")).status == 401

    def test_tenant_in_a_nested_claim(self, tmp_path: Path, idp: Idp) -> None:
        world = make_world(tmp_path / "config", files(tenant_claim=["organization", "id"]), idp.fetch)

        assert world.verify(token(organization={"id": ["acme"]})).headers["X-Auth-Tenant"] == "acme"
        assert world.verify(token(organization="acme")).status == 401

    def test_claim_whose_name_is_an_address(self, tmp_path: Path, idp: Idp) -> None:
        world = make_world(tmp_path / "config", files(tenant_claim="https://example.com/tenant"), idp.fetch)

        claims: dict[str, Any] = {"https://example.com/tenant": "acme"}

        assert world.verify(token(**claims)).status == 200

    def test_scopes_as_a_list(self, tmp_path: Path, idp: Idp) -> None:
        world = make_world(tmp_path / "config", files(scope_claim="scp"), idp.fetch)

        assert world.verify(token(scp=["llm", "chat", 7])).headers["X-Auth-Scopes"] == "chat llm"
        assert world.verify(token(scp={"chat": 1})).headers["X-Auth-Scopes"] == ""

    def test_another_subject(self, tmp_path: Path, idp: Idp) -> None:
        world = make_world(tmp_path / "config", files(subject_claim="azp"), idp.fetch)

        assert world.verify(token()).headers["X-Auth-Sub"] == "robot"

    def test_algorithms(self, tmp_path: Path, idp: Idp) -> None:
        world = make_world(tmp_path / "config", files(algorithms=["ES256"]), idp.fetch)

        assert world.verify(token()).status == 401

    def test_jwks_address_without_discovery(self, tmp_path: Path, idp: Idp) -> None:
        idp.documents["http://idp:8080/certs"] = {"keys": [public_jwk(RSA_KEY, "rsa-1")]}
        world = make_world(tmp_path / "config", files(jwks_uri="http://idp:8080/certs"), idp.fetch)

        assert world.verify(token()).status == 200
        assert idp.fetched == ["http://idp:8080/certs"]


class TestKeys:
    """Reading and renewing the issuer's keys."""

    def test_they_are_read_once(self, idp_world: World, idp: Idp) -> None:
        for _ in range(20):
            assert idp_world.verify(token()).status == 200

        assert idp.fetched == [f"{IDP}/.well-known/openid-configuration", f"{IDP}/certs"]

    def test_the_background_reads_them_before_anybody_asks(self, idp_world: World, idp: Idp) -> None:
        idp_world.service.loaded.issuers.renew_when_due()
        before = len(idp.fetched)

        assert idp_world.verify(token()).status == 200
        assert len(idp.fetched) == before == 4

    def test_a_new_key_is_found(self, idp_world: World, idp: Idp, monkeypatch: pytest.MonkeyPatch) -> None:
        idp_world.verify(token())
        idp.set_keys(IDP, public_jwk(RSA_KEY, "rsa-1"), public_jwk(NEW_RSA_KEY, "rsa-2"))
        pass_time(monkeypatch, 11)

        assert idp_world.verify(token({"alg": "RS256", "kid": "rsa-2"}, NEW_RSA_KEY)).status == 200
        assert idp_world.verify(token()).status == 200

    def test_a_key_made_just_after_a_renewal_is_found(
        self, idp_world: World, idp: Idp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        idp_world.verify(token())
        pass_time(monkeypatch, 301)
        idp_world.service.loaded.issuers.renew_when_due()
        idp.set_keys(IDP, public_jwk(RSA_KEY, "rsa-1"), public_jwk(NEW_RSA_KEY, "rsa-2"))
        pass_time(monkeypatch, 1)

        assert idp_world.verify(token({"alg": "RS256", "kid": "rsa-2"}, NEW_RSA_KEY)).status == 200

    def test_unknown_kids_cause_few_fetches(
        self, idp_world: World, idp: Idp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        idp_world.verify(token())
        pass_time(monkeypatch, 11)

        for number in range(50):
            assert idp_world.verify(token({"alg": "RS256", "kid": f"guess-{number}"})).status == 401

        assert idp.fetched.count(f"{IDP}/certs") == 2

    def test_a_key_that_was_taken_back_is_refused_after_the_renewal(
        self, idp_world: World, idp: Idp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        idp_world.verify(token())
        idp.set_keys(IDP, public_jwk(NEW_RSA_KEY, "rsa-2"))
        pass_time(monkeypatch, 301)
        idp_world.service.loaded.issuers.renew_when_due()

        assert idp_world.verify(token()).status == 401

    def test_an_issuer_that_is_away_keeps_its_keys_for_an_hour(
        self, idp_world: World, idp: Idp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        idp_world.verify(token())
        idp.documents.clear()
        pass_time(monkeypatch, 3000)
        idp_world.service.loaded.issuers.renew_when_due()
        assert idp_world.verify(token()).status == 200

        pass_time(monkeypatch, 3700)

        result = idp_world.verify(token())
        assert (result.status, result.headers["Cache-Control"]) == (503, "no-store")
        health = idp_world.verify(None, "/healthz")
        assert (health.status, health.body["status"]) == (200, "degraded")
        assert any(IDP in problem for problem in health.body["problems"])
        # Other issuers are not affected.
        assert idp_world.verify("Bearer " + idp_world.issued()).status == 200

    def test_an_issuer_that_was_never_reached(self, idp_world: World, idp: Idp) -> None:
        kept = dict(idp.documents)
        idp.documents.clear()
        assert [idp_world.verify(token()).status for _ in range(5)] == [503] * 5
        # One attempt, not five.
        assert len(idp.fetched) == 1

        idp.documents.update(kept)
        idp_world.service.loaded.issuers.all[IDP]._tried_at = float("-inf")
        assert idp_world.verify(token()).status == 200

    def test_one_fetch_for_many_that_wait(self, idp_world: World, idp: Idp) -> None:
        entered, leave = threading.Event(), threading.Event()
        original = idp.fetch

        def slow(address: str, ca_file: str) -> Mapping[str, Any]:
            entered.set()
            leave.wait(timeout=5)
            return original(address, ca_file)

        idp_world.service.loaded.issuers.all[IDP]._fetch = slow
        statuses: list[int] = []
        threads = [
            threading.Thread(target=lambda: statuses.append(idp_world.verify(token()).status))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        assert entered.wait(timeout=5)
        time.sleep(0.2)
        # Most do not wait: a slow issuer must not block all checks.
        assert len(statuses) >= 8 - 1 - issuers.MOST_WAITING
        leave.set()
        for thread in threads:
            thread.join(timeout=5)

        assert sorted(set(statuses)) == [200, 503]
        assert idp.fetched.count(f"{IDP}/certs") == 1

    def test_keys_outlive_a_change_of_other_settings(self, idp_world: World, idp: Idp) -> None:
        idp_world.verify(token())
        before = len(idp.fetched)
        changed = files()
        del changed["clients.json"]["clients"]["disabled"]
        idp_world.switch("2", changed)

        assert idp_world.verify(token()).status == 200
        assert len(idp.fetched) == before

    def test_a_removed_issuer_is_refused(self, idp_world: World) -> None:
        idp_world.verify(token())
        idp_world.switch("2", documents())

        assert idp_world.verify(token()).status == 401

    @pytest.mark.parametrize(
        "jwk",
        [
            {"kty": "oct", "kid": "rsa-1", "k": b64(b"shared secret of 32 bytes, or so")},
            public_jwk(SMALL_RSA_KEY, "rsa-1"),
            public_jwk(RSA_KEY, "rsa-1", use="enc"),
            {**public_jwk(RSA_KEY, "rsa-1"), "n": "!!"},
            {"kid": "rsa-1"},
            "rsa-1",
        ],
    )
    def test_keys_that_are_not_used(self, idp_world: World, idp: Idp, jwk: Any) -> None:
        idp.documents[f"{IDP}/certs"] = {"keys": [jwk, public_jwk(NEW_RSA_KEY, "rsa-2")]}

        assert idp_world.verify(token()).status == 401
        assert idp_world.verify(token({"alg": "RS256", "kid": "rsa-2"}, NEW_RSA_KEY)).status == 200

    def test_hmac_with_a_shared_key_of_the_set(self, idp_world: World, idp: Idp) -> None:
        forge = Forge(issuer=IDP, audience="dify-api", kid="oct-1", client="x", tenant="acme", key=EC_KEY)
        secret = b"shared secret of 32 bytes, or so"
        idp.documents[f"{IDP}/certs"]["keys"].append({"kty": "oct", "kid": "oct-1", "k": b64(secret)})

        assert idp_world.verify("Bearer " + forge.hmac_signed(secret)).status == 401


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"issuer": IDP + "/", "jwks_uri": f"{IDP}/certs"}, "has another issuer"),
        ({"jwks_uri": f"{IDP}/certs"}, "has another issuer"),
        ({"issuer": IDP}, "has no usable jwks_uri"),
        ({"issuer": IDP, "jwks_uri": "http://idp.example/certs"}, "has no usable jwks_uri"),
        ({"issuer": IDP, "jwks_uri": "file:///etc/passwd"}, "has no usable jwks_uri"),
        ({"issuer": IDP, "jwks_uri": 7}, "has no usable jwks_uri"),
    ],
)
def test_discovery_documents_that_cannot_be_used(
    idp_world: World, idp: Idp, document: dict[str, Any], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    idp.documents[f"{IDP}/.well-known/openid-configuration"] = document

    assert idp_world.verify(token()).status == 503

    assert complaint in capsys.readouterr().out


@pytest.mark.parametrize("certs", [{}, {"keys": {}}, {"keys": []}, {"keys": [{"kty": "oct", "k": "AA"}]}])
def test_key_sets_that_cannot_be_used(idp_world: World, idp: Idp, certs: dict[str, Any]) -> None:
    idp.documents[f"{IDP}/certs"] = certs

    assert idp_world.verify(token()).status == 503


def pass_time(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the monotonic clock of the module jump ahead."""
    real = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: real + seconds)


class Site(BaseHTTPRequestHandler):
    """Answers as its path says."""

    def do_GET(self) -> None:
        answers = {
            "/good": (200, {}, b'{"keys": []}'),
            "/moved": (302, {"Location": "/good"}, b""),
            "/broken": (500, {}, b"{}"),
            "/text": (200, {}, b"hello"),
            "/list": (200, {}, b"[]"),
            "/twice": (200, {}, b'{"keys": [], "keys": []}'),
            "/large": (200, {}, json.dumps({"x": "y" * 300_000}).encode()),
        }
        status, headers, body = answers[self.path]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the library's name
        """Keep the test's output clean."""


@pytest.fixture
def site() -> Iterator[str]:
    with served(Site) as url:
        yield url


def test_fetching(site: str) -> None:
    assert issuers.fetch_json(f"{site}/good", "") == {"keys": []}


@pytest.mark.parametrize("path", ["moved", "broken", "text", "list", "twice", "large"])
def test_answers_that_are_not_taken(site: str, path: str) -> None:
    """Redirects among them: whoever can redirect could choose the keys."""
    with pytest.raises(issuers.IssuerError, match=path):
        issuers.fetch_json(f"{site}/{path}", "")


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/x", "file:///etc/passwd", "http://[", "nonsense"])
def test_addresses_that_cannot_be_reached(address: str) -> None:
    with pytest.raises(issuers.IssuerError):
        issuers.fetch_json(address, "")


def test_a_broken_certificate_file(tmp_path: Path, site: str) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")

    with pytest.raises(issuers.IssuerError):
        issuers.fetch_json(f"{site}/good", str(tmp_path / "ca.pem"))
