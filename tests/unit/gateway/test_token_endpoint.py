"""Issuing tokens: the ways to authenticate with a secret, scopes, lifetimes, errors as RFC 6749 wants them."""

import base64
import json
import time
from typing import Any
from urllib.parse import quote

import pytest
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from werkzeug.test import TestResponse

from dify_gateway import client_secrets
from support.gateway import AUDIENCE, ISSUER, KID, OTHER_SECRET, SECRET, documents
from support.tokens import N, unb64
from tests.unit.gateway.world import World

GRANT = {"grant_type": "client_credentials"}


def basic(client: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{client}:{secret}".encode()).decode()}


def claims(token: str) -> dict[str, Any]:
    return dict(json.loads(unb64(token.split(".")[1])))


def assert_error(answer: TestResponse, status: int, error: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.mimetype == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json is not None
    assert answer.json["error"] == error
    # RFC 6749 names the characters that a description may have.
    described = answer.json.get("error_description", "-")
    assert all(" " <= letter <= "~" and letter not in '"\\' for letter in described)


def test_secret_in_the_form(world: World) -> None:
    answer = world.token()

    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Pragma"] == "no-cache"
    assert answer.json is not None
    assert set(answer.json) == {"access_token", "token_type", "expires_in", "scope"}
    assert (answer.json["token_type"], answer.json["expires_in"]) == ("Bearer", 3600)
    assert answer.json["scope"] == "chat files"


def test_secret_by_basic(world: World) -> None:
    answer = world.public.post("/oauth/token", data=GRANT, headers=basic("acme-app", SECRET))

    assert answer.status_code == 200


def test_secret_by_basic_with_the_same_client_id_in_the_form(world: World) -> None:
    data = {**GRANT, "client_id": "acme-app"}

    assert world.public.post("/oauth/token", data=data, headers=basic("acme-app", SECRET)).status_code == 200


def test_id_and_secret_of_basic_are_form_encoded_first(world: World) -> None:
    encoded = quote("acme-app", safe="").replace("-", "%2D")

    assert world.public.post("/oauth/token", data=GRANT, headers=basic(encoded, SECRET)).status_code == 200


def test_token_is_as_rfc_9068_wants_it(world: World) -> None:
    before = int(time.time())

    token = world.issued()

    header = json.loads(unb64(token.split(".")[0]))
    assert header == {"alg": "ES256", "typ": "at+jwt", "kid": KID}
    read = claims(token)
    assert read == {
        "iss": ISSUER,
        "sub": "acme-app",
        "aud": AUDIENCE,
        "client_id": "acme-app",
        "iat": read["iat"],
        "exp": read["iat"] + 3600,
        "jti": read["jti"],
        "scope": "chat files",
        "tenant": "acme",
    }
    assert before <= read["iat"] <= time.time()
    assert len(unb64(read["jti"])) == 16


def test_every_token_has_a_jti_of_its_own_and_the_smaller_s(world: World) -> None:
    issued = [world.issued() for _ in range(20)]

    assert len({claims(token)["jti"] for token in issued}) == 20
    assert all(int.from_bytes(unb64(token.split(".")[2])[32:], "big") <= N // 2 for token in issued)


def test_lifetime_of_the_client(world: World) -> None:
    answer = world.token("globex-app", OTHER_SECRET)

    assert answer.json is not None
    assert answer.json["expires_in"] == 120
    read = claims(answer.json["access_token"])
    assert read["exp"] - read["iat"] == 120


@pytest.mark.parametrize(
    ("asked", "given"),
    [("chat", "chat"), ("files chat", "files chat"), ("chat chat", "chat"), ("", "chat files")],
)
def test_scopes_that_the_client_has(world: World, asked: str, given: str) -> None:
    answer = world.token(scope=asked)

    assert answer.json is not None
    assert answer.json["scope"] == given
    assert claims(answer.json["access_token"])["scope"] == given


@pytest.mark.parametrize("asked", ["llm", "chat llm", "nonsense", "chat nonsense", "CHAT", 'chat"'])
def test_scopes_that_the_client_has_not(world: World, asked: str) -> None:
    assert_error(world.token(scope=asked), 400, "invalid_scope")


@pytest.mark.parametrize(
    ("client", "secret"),
    [
        ("acme-app", OTHER_SECRET),
        ("acme-app", SECRET[:-1]),
        ("acme-app", SECRET + " "),
        ("acme-app", "x" * 5000),
        ("acme-app", "\u00e9\u4e2d"),
        ("acme-app", "\0"),
        ("nobody", SECRET),
        ("ACME-APP", SECRET),
        ("disabled", SECRET),
        ("signer", SECRET),
        ("basic-only", SECRET),
        ("\u00e9", SECRET),
    ],
    ids=range(12),
)
def test_wrong_client_or_secret_gets_one_answer(world: World, client: str, secret: str) -> None:
    reference = world.token("acme-app", OTHER_SECRET)

    answer = world.token(client, secret)

    assert_error(answer, 401, "invalid_client")
    assert answer.headers["WWW-Authenticate"].startswith('Basic realm="')
    assert answer.json == reference.json


def test_wrong_secret_by_basic(world: World) -> None:
    answer = world.public.post("/oauth/token", data=GRANT, headers=basic("acme-app", OTHER_SECRET))

    assert_error(answer, 401, "invalid_client")
    assert answer.headers["WWW-Authenticate"].startswith('Basic realm="')


@pytest.mark.parametrize(
    "header",
    [
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic " + base64.b64encode(b"acme-app").decode(),
        "Basic " + base64.b64encode(b"\xff\xfe:\xff").decode(),
        "Basic " + base64.b64encode(b":").decode(),
        "Bearer abc",
        "Negotiate abc",
    ],
)
def test_headers_that_cannot_be_right(world: World, header: str) -> None:
    answer = world.public.post("/oauth/token", data=GRANT, headers={"Authorization": header})

    assert_error(answer, 401, "invalid_client")


def test_nothing_to_authenticate_with(world: World) -> None:
    assert_error(world.public.post("/oauth/token", data=GRANT), 401, "invalid_client")


def test_client_that_must_use_basic(world: World) -> None:
    answer = world.public.post("/oauth/token", data=GRANT, headers=basic("basic-only", SECRET))

    assert answer.status_code == 200


def test_both_secrets_of_a_client_are_right_while_it_changes(world: World) -> None:
    files = documents()
    new = client_secrets.generate_secret()
    files["clients.json"]["clients"]["acme-app"]["secrets"].append(client_secrets.hash_secret(new))
    world.switch("2", files)

    assert world.token(secret=SECRET).status_code == 200
    assert world.token(secret=new).status_code == 200


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": "authorization_code"}, "unsupported_grant_type"),
        ({"grant_type": "refresh_token"}, "unsupported_grant_type"),
        ({"grant_type": 'x"\\\u00e9'}, "unsupported_grant_type"),
        ({"grant_type": ""}, "invalid_request"),
    ],
)
def test_other_grants(world: World, form: dict[str, str], error: str) -> None:
    assert_error(world.token(**form), 400, error)


def test_grant_type_missing(world: World) -> None:
    answer = world.public.post("/oauth/token", data={"client_id": "acme-app", "client_secret": SECRET})

    assert_error(answer, 400, "invalid_request")


def test_parameters_in_the_address_are_refused(world: World) -> None:
    query = {**GRANT, "client_id": "acme-app", "client_secret": SECRET}

    assert_error(
        world.public.post(
            "/oauth/token", query_string=query, content_type="application/x-www-form-urlencoded"
        ),
        400,
        "invalid_request",
    )


def test_an_address_with_a_query_is_refused_though_the_body_is_right(world: World) -> None:
    data = {**GRANT, "client_id": "acme-app", "client_secret": SECRET}

    assert_error(world.public.post("/oauth/token?x=1", data=data), 400, "invalid_request")


def test_multipart_bodies_are_refused(world: World) -> None:
    data = {**GRANT, "client_id": "acme-app", "client_secret": SECRET}

    answer = world.public.post("/oauth/token", data=data, content_type="multipart/form-data")

    assert_error(answer, 400, "invalid_request")


@pytest.mark.parametrize("name", ["grant_type", "scope", "client_id", "client_secret"])
def test_repeated_parameters_are_refused(world: World, name: str) -> None:
    form = {**GRANT, "client_id": "acme-app", "client_secret": SECRET, "scope": "chat"}
    data: dict[str, str | list[str]] = {**form, name: [form[name], form[name]]}

    assert_error(world.public.post("/oauth/token", data=data), 400, "invalid_request")


def test_two_ways_to_authenticate_are_refused(world: World) -> None:
    data = {**GRANT, "client_id": "acme-app", "client_secret": SECRET}

    answer = world.public.post("/oauth/token", data=data, headers=basic("acme-app", SECRET))

    assert_error(answer, 400, "invalid_request")


def test_another_client_id_in_the_form_is_refused(world: World) -> None:
    data = {**GRANT, "client_id": "globex-app"}

    assert_error(
        world.public.post("/oauth/token", data=data, headers=basic("acme-app", SECRET)),
        400,
        "invalid_request",
    )


def test_json_bodies_are_refused(world: World) -> None:
    body = {**GRANT, "client_id": "acme-app", "client_secret": SECRET}

    assert_error(world.public.post("/oauth/token", json=body), 400, "invalid_request")


def test_large_bodies_are_refused(world: World) -> None:
    assert_error(world.token(padding="x" * 20_000), 413, "invalid_request")


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/revoke", "/oauth/introspect"])
def test_other_methods_are_refused(world: World, path: str) -> None:
    answer = world.public.get(path)

    assert_error(answer, 405, "invalid_request")
    assert "POST" in answer.headers["Allow"]


@pytest.mark.parametrize(
    "path", ["/verify", "/healthz", "/oauth/verify", "/oauth/../verify", "/oauth/healthz", "/"]
)
def test_what_nginx_alone_may_ask_is_not_there(world: World, path: str) -> None:
    answer = world.public.get(path, headers={"Authorization": "Bearer " + world.forge.valid()})

    assert_error(answer, 404, "not_found")
    assert not [name for name in answer.headers.keys() if name.startswith("X-Auth")]  # noqa: SIM118  # not a mapping


def test_metadata(world: World) -> None:
    answer = world.public.get("/.well-known/oauth-authorization-server")

    assert answer.json is not None
    # Authlib's reading of RFC 8414 asks for a response type, which RFC 8414 lets be an empty list.
    metadata = AuthorizationServerMetadata({**answer.json, "response_types_supported": ["none"]})
    metadata.validate()
    assert answer.json["issuer"] == ISSUER
    assert answer.json["token_endpoint"] == f"{ISSUER}/oauth/token"
    assert answer.json["grant_types_supported"] == ["client_credentials"]


def test_published_keys_have_no_private_part(world: World) -> None:
    answer = world.public.get("/oauth/jwks.json")

    assert answer.json is not None
    [key] = answer.json["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert key["kid"] == KID


def test_the_log_has_ids_and_no_secret(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    token = world.issued()
    world.token(secret=OTHER_SECRET)
    # An id and a secret that changed places must not put the secret into the log.
    world.token(client=SECRET, secret="acme-app")

    printed = capsys.readouterr().out
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [line["event"] for line in lines] == ["token issued", "refused", "refused"]
    assert (lines[0]["client"], lines[0]["tenant"]) == ("acme-app", "acme")
    assert lines[1]["client"] == "acme-app"
    assert "client" not in lines[2]
    assert all(line["request_id"] for line in lines)
    for secret in (SECRET, OTHER_SECRET, token, token.split(".")[2], "redis-password"):
        assert secret not in printed


def test_the_request_id_of_nginx_is_kept_and_a_strange_one_is_not(world: World) -> None:
    kept = world.public.get("/oauth/jwks.json", headers={"X-Request-Id": "abc-123"})
    strange = world.public.get("/oauth/jwks.json", headers={"X-Request-Id": "a b{}"})

    assert kept.headers["X-Request-Id"] == "abc-123"
    assert len(strange.headers["X-Request-Id"]) == 32
