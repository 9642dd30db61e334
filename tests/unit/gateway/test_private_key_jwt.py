"""Client authentication by a signed assertion."""

import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from support.gateway import CLIENT_KEY, ISSUER, SECRET, documents
from support.tokens import Forge, b64, public_jwk, rs256, unb64
from tests.unit.gateway.hostile import CASES
from tests.unit.gateway.world import World

TOKEN_ENDPOINT = f"{ISSUER}/oauth/token"
TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class ClientForge(Forge):
    """Makes assertions of the client `signer`."""

    @property
    def header(self) -> dict[str, Any]:
        return {"alg": "ES256", "typ": "JWT", "kid": self.kid}

    @property
    def claims(self) -> dict[str, Any]:
        return {
            "iss": self.client,
            "sub": self.client,
            "aud": self.audience,
            "iat": self.now,
            "exp": self.now + 120,
            "jti": b64(str(time.monotonic_ns()).encode()),
        }


@pytest.fixture
def signer() -> ClientForge:
    return ClientForge(
        issuer="signer",
        audience=TOKEN_ENDPOINT,
        kid="client-key",
        client="signer",
        tenant="acme",
        key=CLIENT_KEY,
    )


def authenticate(world: World, assertion: str, path: str = "/oauth/token", **form: str) -> Any:
    data = {
        "grant_type": "client_credentials",
        "client_assertion_type": TYPE,
        "client_assertion": assertion,
        **form,
    }
    return world.public.post(path, data=data)


def test_an_assertion_gets_a_token_that_works(world: World, signer: ClientForge) -> None:
    answer = authenticate(world, signer.valid())

    assert answer.status_code == 200, answer.text
    assert answer.json["scope"] == "chat llm"
    assert world.verify("Bearer " + answer.json["access_token"]).status == 200


@pytest.mark.parametrize("audience", [ISSUER, TOKEN_ENDPOINT, [TOKEN_ENDPOINT], f"{ISSUER}/oauth/revoke"])
def test_audiences(world: World, signer: ClientForge, audience: Any) -> None:
    assert authenticate(world, signer.with_claims(aud=audience)).status_code == 200


def test_types_and_missing_iat(world: World, signer: ClientForge) -> None:
    for header in ({"typ": None}, {"typ": "client-authentication+jwt"}, {"typ": "jwt"}):
        assert authenticate(world, signer.with_header(**header)).status_code == 200
    assert authenticate(world, signer.with_claims(iat=None)).status_code == 200


def test_client_id_may_be_sent_as_well(world: World, signer: ClientForge) -> None:
    assert authenticate(world, signer.valid(), client_id="signer").status_code == 200


def test_an_rsa_key(world: World, signer: ClientForge) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    files = documents()
    files["clients.json"]["clients"]["signer"]["jwks"] = {"keys": [public_jwk(key, "rsa", alg="RS256")]}
    world.switch("2", files)
    signed = signer.unsigned({"alg": "RS256", "kid": "rsa"}, signer.claims)

    assert authenticate(world, f"{signed}.{b64(rs256(key, signed.encode()))}").status_code == 200


def test_an_assertion_is_taken_once(world: World, signer: ClientForge) -> None:
    assertion = signer.valid()

    assert authenticate(world, assertion).status_code == 200
    again = authenticate(world, assertion)

    assert (again.status_code, again.json["error"]) == (401, "invalid_client")


def test_it_is_remembered_as_long_as_it_is_valid(world: World, signer: ClientForge) -> None:
    authenticate(world, signer.with_claims(jti="once"))

    assert 115 < world.redis.ttl("dify-gateway:assertion:signer:once") <= 122


def test_it_is_taken_once_at_all_endpoints_together(world: World, signer: ClientForge) -> None:
    token = authenticate(world, signer.valid()).json["access_token"]
    assertion = signer.valid()

    assert authenticate(world, assertion, "/oauth/revoke", token=token).status_code == 200
    assert authenticate(world, assertion, "/oauth/introspect", token=token).status_code == 401
    assert world.verify(f"Bearer {token}").status == 401


ACCESS = ec.generate_private_key(ec.SECP256R1())

REFUSED: dict[str, Any] = {
    "aud of another service": lambda f: f.with_claims(aud="https://other.example/token"),
    "aud of two services": lambda f: f.with_claims(aud=[TOKEN_ENDPOINT, "https://other.example/token"]),
    "aud missing": lambda f: f.with_claims(aud=None),
    "aud with a slash": lambda f: f.with_claims(aud=ISSUER + "/"),
    "aud an object": lambda f: f.with_claims(aud={}),
    "iss of another client": lambda f: f.with_claims(iss="acme-app"),
    "iss missing": lambda f: f.with_claims(iss=None),
    "sub of another client": lambda f: f.with_claims(sub="acme-app"),
    "sub missing": lambda f: f.with_claims(sub=None),
    "sub a number": lambda f: f.with_claims(sub=1),
    "unknown client": lambda f: f.with_claims(iss="nobody", sub="nobody"),
    "another client with both": lambda f: f.with_claims(iss="acme-app", sub="acme-app"),
    "expired": lambda f: f.with_claims(exp=f.now - 1),
    "exp missing": lambda f: f.with_claims(exp=None),
    "exp a text": lambda f: f.with_claims(exp="soon"),
    "exp of 400 digits": lambda f: f.with_claims(exp=10**400),
    "lives for an hour": lambda f: f.with_claims(exp=f.now + 3600),
    "iat in the future": lambda f: f.with_claims(iat=f.now + 60),
    "nbf in the future": lambda f: f.with_claims(nbf=f.now + 60),
    "jti missing": lambda f: f.with_claims(jti=None),
    "jti empty": lambda f: f.with_claims(jti=""),
    "jti a number": lambda f: f.with_claims(jti=1),
    "jti too long": lambda f: f.with_claims(jti="x" * 200),
    "stranger's key": lambda f: f.sign(f.header, f.claims, ACCESS),
    "unknown kid": lambda f: f.with_header(kid="other"),
    "own key in the header": lambda f: f.sign({**f.header, "jwk": public_jwk(ACCESS, "x")}, f.claims, ACCESS),
    "type of an access token": lambda f: f.with_header(typ="at+jwt"),
    "crit": lambda f: f.with_header(crit=["exp"]),
    "alg none": lambda f: f.unsigned({**f.header, "alg": "none"}, f.claims) + ".",
    "alg none with a signature": lambda f: f.with_header(alg="none"),
    "HS256 with the public key": lambda f: f.hmac_signed(f.public_pem()),
    "HS512 with the public key": lambda f: f.hmac_signed(f.public_pem(), "HS512"),
    "one bit wrong": lambda f: f.signature_replaced(unb64(f.valid().split(".")[2])[:-1] + b"\0"),
    "empty": lambda _f: "",
    "nonsense": lambda _f: "nonsense",
    "\u00e9": lambda _f: "\u00e9.\u00e9.\u00e9",
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_assertions_are_refused_alike(world: World, signer: ClientForge, name: str) -> None:
    answer = authenticate(world, REFUSED[name](signer))

    assert answer.status_code == 401
    assert answer.json == {
        "error": "invalid_client",
        "error_description": "The client could not be authenticated",
    }
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")


@pytest.mark.parametrize(
    "name", [name for name in CASES if name.startswith(("alg ", "signature", "kid", "claims"))]
)
def test_hostile_tokens_are_no_assertions_either(world: World, name: str) -> None:
    assert authenticate(world, CASES[name](world.forge).removeprefix("Bearer ")).status_code == 401


def test_an_access_token_of_ours_is_no_assertion(world: World) -> None:
    assert authenticate(world, world.issued()).status_code == 401


def test_an_assertion_is_no_access_token(world: World, signer: ClientForge) -> None:
    assert world.verify("Bearer " + signer.valid()).status == 401


def test_another_assertion_type_is_refused(world: World, signer: ClientForge) -> None:
    answer = authenticate(world, signer.valid(), client_assertion_type="saml")

    assert answer.status_code == 401


def test_an_assertion_beside_a_secret_is_refused(world: World, signer: ClientForge) -> None:
    answer = authenticate(world, signer.valid(), client_id="acme-app", client_secret=SECRET)

    assert (answer.status_code, answer.json["error"]) == (400, "invalid_request")


def test_failures_count_for_the_client_that_the_assertion_names(world: World, signer: ClientForge) -> None:
    statuses = [
        authenticate(world, signer.sign(signer.header, signer.claims, ACCESS)).status_code for _ in range(6)
    ]

    assert statuses == [401] * 5 + [429]


def test_a_disabled_client(world: World, signer: ClientForge) -> None:
    files = documents()
    files["clients.json"]["clients"]["signer"]["disabled"] = True
    world.switch("2", files)

    assert authenticate(world, signer.valid()).status_code == 401


@pytest.mark.parametrize(
    ("named", "status"),
    [({}, 200), ({"client_id": "signer"}, 200), ({"client_id": ""}, 200), ({"client_id": "app"}, 401)],
)
@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/introspect"])
def test_the_client_that_is_named_is_the_assertions(
    world: World, signer: ClientForge, path: str, named: dict[str, str], status: int
) -> None:
    more = {} if path == "/oauth/token" else {"token": "x"}

    answer = authenticate(world, signer.valid(), path, **more, **named)

    assert answer.status_code == status
    if status != 200:
        assert answer.json["error"] == "invalid_client"
