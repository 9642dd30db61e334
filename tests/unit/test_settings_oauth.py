"""Settings of OAuth: what is accepted and derived, the clients beside them, one clear error for each mistake."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest

from dify_gateway import client_secrets, keys
from infra.catalogue.project import ROOT
from infra.settings.oauth import OAuth, documents
from infra.settings.oauth_clients import CANARY_TENANT, clients_path
from infra.settings.program import load
from infra.settings.rate_limits import Bucket, GroupLimits
from infra.settings.secrets import signing_keys
from support.certificates import issue
from support.configuration import SECRETS, configure, resolved, settings

ACME: Mapping[str, Any] = {"acme": {"app": "echo-chat"}}
EXTERNAL: Mapping[str, Any] = {"issuer": "https://id.example.com", "audience": "dify", "tenant": "acme"}
HASH = client_secrets.hash_secret(client_secrets.generate_secret())
CLIENT: Mapping[str, Any] = {"tenant": "acme", "scopes": ["chat"], "secrets": [HASH]}

REDIS = {"url": "redis://redis/3", "seal_key": "k" * 32}


def oauth(*, plain: Mapping[str, Any] | None = None, **parts: Any) -> OAuth:
    """Return what is read with one tenant and some parts changed."""
    found = settings({"oauth": {"enabled": True, "tenants": ACME, **parts}, **(plain or {})}).oauth
    assert found is not None
    return found


def refusal(plain: Mapping[str, Any], secrets: Mapping[str, str] | None = None) -> list[str]:
    """Return the lines of the error, one for each problem."""
    with pytest.raises(pulumi.RunError) as caught:
        settings(plain, secrets)
    return [line.removeprefix("  - ") for line in str(caught.value).splitlines()[1:]]


def clients_file(directory: Path, clients: object, *, mode: int = 0o600) -> str:
    path = directory / "clients.json"
    path.write_text(clients if isinstance(clients, str) else json.dumps({"clients": clients}))
    path.chmod(mode)
    return str(path)


def test_off_is_the_default_and_reads_nothing() -> None:
    assert settings({"oauth": {"clientsFile": "/no/such/file"}}, {"oauthSigningKeys": ""}).oauth is None
    assert settings().oauth is None


def test_issuer_and_audience_follow_the_public_url() -> None:
    found = oauth(plain={"publicUrl": "https://dify.example.com"})

    assert (found.issuer, found.audience, found.token_seconds) == (
        "https://dify.example.com",
        "https://dify.example.com",
        3600,
    )
    own = oauth(issuer="https://id.example.com", audience="the-api", tokenSeconds=600)
    assert (own.issuer, own.audience, own.token_seconds) == ("https://id.example.com", "the-api", 600)


def test_limits_of_a_tenant_are_those_of_an_api_key_unless_given() -> None:
    usual = settings().rate_limits.groups["v1"]
    inherited, *_ = oauth().tenants
    own, *_ = oauth(tenants={"acme": {"app": "echo-chat", "requests": 5, "seconds": 60}}).tenants
    free, *_ = oauth(tenants={"acme": {"app": "echo-chat", "requests": 0, "concurrent": 5}}).tenants

    assert (inherited.limits.rate, inherited.limits.concurrent) == (usual.rate, usual.concurrent)
    assert own.limits.rate == Bucket(requests=5, seconds=60, burst=5)
    assert (free.limits.rate, free.limits.concurrent) == (None, 5)
    # The edge counts a tenant, wherever its calls come from.
    assert own.limits.address_rate is None


def test_no_tenant_gets_to_difys_own_limit_of_an_app() -> None:
    found = oauth(plain={"limits": {"activeRequests": 7}})

    assert {tenant.limits.concurrent for tenant in found.tenants} == {7}


def test_the_canary_is_a_tenant_of_its_own() -> None:
    assert [(tenant.name, tenant.app) for tenant in oauth().tenants] == [
        ("acme", "echo-chat"),
        (CANARY_TENANT, "canary"),
    ]
    assert [tenant.name for tenant in oauth(plain={"canary": False}).tenants] == ["acme"]
    assert [tenant.name for tenant in oauth(tenants={}).tenants] == [CANARY_TENANT]


def test_signing_keys_are_a_secret_of_the_stack() -> None:
    document = signing_keys()
    found = settings({"oauth": {"enabled": True, "tenants": ACME}}, {"oauthSigningKeys": document}).oauth

    assert found is not None
    assert resolved({"keys": found.signing_keys})["keys"] == document


def test_clients_come_from_the_file_and_its_content_is_named(tmp_path: Path) -> None:
    given = clients_file(tmp_path, {"bot": CLIENT})
    one = oauth(clientsFile=given)
    clients_file(tmp_path, {"bot": CLIENT, "other": {**CLIENT, "token_seconds": 60}})
    two = oauth(clientsFile=given)

    assert one.clients == {"bot": CLIENT}
    assert list(two.clients) == ["bot", "other"]
    assert one.clients_digest != two.clients_digest
    assert two.clients_file == Path(given)


def test_clients_lie_beside_the_real_file_of_the_settings(tmp_path: Path) -> None:
    stored = tmp_path / "data" / "stacks" / "Pulumi.prod.yaml"
    stored.parent.mkdir(parents=True)
    stored.touch()
    link = tmp_path / "Pulumi.prod.yaml"
    link.symlink_to(stored)

    assert clients_path("prod", link) == stored.parent / "clients.prod.json"
    assert clients_path("prod", link, "/etc/clients.json") == Path("/etc/clients.json")
    assert oauth().clients_file == ROOT / "clients.unit.json"


def test_a_stack_without_a_file_has_no_clients() -> None:
    found = oauth()

    assert found.clients == {}
    assert found.clients_digest == ""


def test_ten_thousand_clients_are_read(tmp_path: Path) -> None:
    given = clients_file(tmp_path, {f"client-{number}": CLIENT for number in range(10_000)})

    assert len(oauth(clientsFile=given).clients) == 10_000


def test_an_external_issuer_brings_its_authority(tmp_path: Path) -> None:
    root = tmp_path / "root.pem"
    root.write_text(issue(ca=True).pem)
    found = oauth(issuers=[{**EXTERNAL, "ca_file": str(root)}])

    assert [one["ca_file"] for one in found.issuers] == ["issuer-0.pem"]
    assert found.ca_files == {"issuer-0.pem": root.read_text()}
    written = documents(
        found,
        redis=REDIS,
        app_keys={tenant.name: "app-12345678" for tenant in found.tenants},
    )
    assert set(written) == {"config.json", "tenants.json", "issuer-0.pem"}


def test_limits_are_named_by_the_tenant() -> None:
    found = oauth()
    written = documents(
        found,
        redis=REDIS,
        app_keys={"acme": "app-a", "canary": "app-b"},
    )

    assert json.loads(written["tenants.json"]) == {
        "tenants": {
            "acme": {"app_key": "app-a", "limits": "acme"},
            "canary": {"app_key": "app-b", "limits": "canary"},
        }
    }


def test_limits_besides_the_tenants() -> None:
    usual = oauth().limits
    own = oauth(
        limits={
            "address": {"requests": 5, "seconds": 60},
            "refusedTokens": {"requests": 0},
            "failures": {"client": 3, "seconds": 300},
        }
    )

    assert usual.address == GroupLimits(rate=Bucket(requests=500, seconds=10, burst=500), concurrent=100)
    assert usual.unknown is not None
    assert usual.unknown.burst > 1000, "a burst of 1,000 new tokens is served"
    assert own.limits.address == GroupLimits(rate=Bucket(requests=5, seconds=60, burst=5), concurrent=100)
    assert own.limits.refused is None
    assert own.limits.unknown == usual.unknown
    written = documents(
        own,
        redis=REDIS,
        app_keys={"acme": "app-a", "canary": "app-b"},
    )
    assert json.loads(written["config.json"])["limits"] == {
        "failures_per_client": 3,
        "failures_per_address": 50,
        "window_seconds": 300,
    }


# (parts of dify:oauth, the key that the error names, a part of the reason or the fix)
MALFORMED: list[tuple[dict[str, Any], str, str]] = [
    ({"enabled": "perhaps"}, "enabled", "true or false"),
    ({"tenant": {}}, "tenant", "did you mean oauth.tenants"),
    ({"issuer": "dify.example.com"}, "issuer", "no scheme"),
    ({"issuer": "https://dify.example.com/"}, "issuer", "trailing slash"),
    ({"audience": "f\u00fcr Dify"}, "audience", "ASCII"),
    ({"tokenSeconds": 59}, "tokenSeconds", "60 to 86400"),
    ({"tokenSeconds": 86_401}, "tokenSeconds", "60 to 86400"),
    ({"tokenSeconds": "1h"}, "tokenSeconds", "60 to 86400"),
    ({"limits": {"adress": {}}}, "limits.adress", "did you mean oauth.limits.address"),
    ({"limits": {"address": 5}}, "limits.address", "not an object"),
    ({"limits": {"address": {"requests": -1}}}, "limits.address.requests", "0 to 1000000"),
    (
        {"limits": {"address": {"requests": 7, "seconds": 61}}},
        "limits.address.requests",
        "requests 6 or 7 with",
    ),
    ({"limits": {"newTokens": {"concurrent": 1}}}, "limits.newTokens.concurrent", "no such setting"),
    (
        {"limits": {"refusedTokens": {"requests": 0, "burst": 9}}},
        "limits.refusedTokens.burst",
        "there is no rate",
    ),
    ({"limits": {"failures": {"client": 0}}}, "limits.failures.client", "1 to 10000"),
    ({"limits": {"failures": {"seconds": 3601}}}, "limits.failures.seconds", "1 to 3600"),
    ({"limits": {"failures": {"client": 60}}}, "limits.failures.address", "less than one client may fail"),
    ({"tenants": ["acme"]}, "tenants", "not an object"),
    ({"tenants": {"acme": "echo-chat"}}, "tenants.acme", "use {app: <name>}"),
    ({"tenants": {"Acme": {"app": "echo-chat"}}}, "tenants.Acme", "lower-case letters"),
    ({"tenants": {"a" * 33: {"app": "echo-chat"}}}, f"tenants.{'a' * 33}", "1 to 32"),
    ({"tenants": {"-acme": {"app": "echo-chat"}}}, "tenants.-acme", "not a hyphen"),
    ({"tenants": {"a;b": {"app": "echo-chat"}}}, "tenants.a;b", "lower-case letters"),
    ({"tenants": {"canary": {"app": "echo-chat"}}}, "tenants.canary", "choose another name"),
    ({"tenants": {"acme": {}}}, "tenants.acme.app", "did you mean "),
    ({"tenants": {"acme": {"app": "no-such-app"}}}, "tenants.acme.app", "did you mean "),
    ({"tenants": {"acme": {"app": "canary"}}}, "tenants.acme.app", "did you mean "),
    ({"tenants": {"acme": {"app": "../secrets"}}}, "tenants.acme.app", "did you mean "),
    (
        {"tenants": {"acme": {"app": "echo-chat"}, "other": {"app": "echo-chat"}}},
        "tenants.other.app",
        "give each tenant an app of its own",
    ),
    (
        {"tenants": {"acme": {"app": "echo-chat", "request": 5}}},
        "tenants.acme.request",
        "did you mean oauth.tenants.acme.requests",
    ),
    (
        {"tenants": {"acme": {"app": "echo-chat", "requests": 5, "seconds": 7}}},
        "tenants.acme.requests",
        "use requests 42 or 43 with seconds 60",
    ),
    (
        {"tenants": {"acme": {"app": "echo-chat", "requests": -1}}},
        "tenants.acme.requests",
        "0 to 1000000",
    ),
    (
        {"tenants": {"acme": {"app": "echo-chat", "requests": 0, "burst": 5}}},
        "tenants.acme.burst",
        "there is no rate",
    ),
    (
        {"tenants": {"acme": {"app": "echo-chat", "concurrent": 65_536}}},
        "tenants.acme.concurrent",
        "0 to 65535",
    ),
    ({"clientsFile": "clients.json"}, "clientsFile", "absolute path"),
    ({"clientsFile": "/no/such/file.json"}, "clientsFile", "make it with this content"),
    ({"clientsFile": "/"}, "clientsFile", "cannot be read"),
    ({"issuers": {"issuer": "https://id.example.com"}}, "issuers", "not a list of objects"),
    ({"issuers": ["https://id.example.com"]}, "issuers", "not a list of objects"),
    ({"issuers": [{"audience": "dify", "tenant": "acme"}]}, "issuers[0].issuer", "an http(s) URL"),
    ({"issuers": [{**EXTERNAL, "audience": ""}]}, "issuers[0].audience", "must be"),
    ({"issuers": [{**EXTERNAL, "tenant": "nobody"}]}, "issuers", "dify:oauth.tenants lacks"),
    ({"issuers": [{**EXTERNAL, "tenant_claim": "org"}]}, "issuers[0].tenant", "exactly one of them"),
    ({"issuers": [{**EXTERNAL, "algorithms": ["none"]}]}, "issuers[0].algorithms", "may contain only"),
    ({"issuers": [{**EXTERNAL, "algorithms": ["HS256"]}]}, "issuers[0].algorithms", "may contain only"),
    ({"issuers": [{**EXTERNAL, "skew": 5}]}, "issuers[0].skew", "not a known key"),
    ({"issuers": [EXTERNAL, EXTERNAL]}, "issuers[1].issuer", "occurs twice"),
    ({"issuers": [{**EXTERNAL, "ca_file": "root.pem"}]}, "issuers[0].ca_file", "absolute path"),
    (
        {"issuers": [{**EXTERNAL, "ca_file": str(Path(__file__))}]},
        "issuers[0].ca_file",
        "is not a file with certificates",
    ),
]


@pytest.mark.parametrize(("parts", "key", "told"), MALFORMED)
def test_malformed_setting_names_key_and_fix(parts: dict[str, Any], key: str, told: str) -> None:
    lines = refusal({"oauth": {"enabled": True, "tenants": ACME, **parts}})

    found = [line for line in lines if line.startswith((f"dify:oauth.{key}:", f"dify:oauth.{key} "))]
    assert len(found) == 1, lines
    assert told in found[0]


def test_nobody_to_give_a_token_to() -> None:
    (line,) = refusal({"oauth": {"enabled": True}, "canary": False})

    assert line.startswith("dify:oauth.tenants: ")
    assert "add a tenant" in line


# (the file, a part of the reason or the fix)
BAD_FILES: list[tuple[object, str]] = [
    ("{", "is not JSON"),
    ("[]", "must have an object of clients"),
    ('{"clients": []}', "must have an object of clients"),
    ('{"clients": {"bot": "secret"}}', "must have an object of clients"),
    ('{"clients": {}, "more": 1}', "more is not a known key"),
    ('{"clients": {"a": {}, "a": {}}}', "occurs twice"),
    ({"bot": {**CLIENT, "tenant": "nobody"}}, "dify:oauth.tenants lacks"),
    ({"bot": {**CLIENT, "scopes": []}}, "clients.bot.scopes must be a list"),
    ({"bot": {**CLIENT, "scopes": ["admin"]}}, "clients.bot.scopes may contain only"),
    ({"bot": {**CLIENT, "secrets": ["dks_in-plain-text"]}}, "clients.bot.secrets"),
    ({"bot": {**CLIENT, "secrets": [HASH] * 3}}, "1 to 2 hashes"),
    ({"bot": {**CLIENT, "scope": "chat"}}, "clients.bot.scope is not a known key"),
    ({"-bot": CLIENT}, "whose name is not"),
    ({"canary": CLIENT}, "the smoke tests' own"),
    ({f"client-{number}": CLIENT for number in range(10_001)}, "10000 at most"),
]


@pytest.mark.parametrize(("clients", "told"), BAD_FILES)
def test_bad_clients_file_is_refused_before_anything_is_created(
    tmp_path: Path, clients: object, told: str
) -> None:
    given = clients_file(tmp_path, clients)
    (line,) = refusal({"oauth": {"enabled": True, "tenants": ACME, "clientsFile": given}})

    assert line.startswith("dify:oauth.clientsFile: ")
    assert told in line
    assert "dks_" not in line
    assert HASH not in line


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    given = clients_file(tmp_path, {}, mode=mode)
    (line,) = refusal({"oauth": {"enabled": True, "tenants": ACME, "clientsFile": given}})

    assert f"chmod 600 {given}" in line


PRIVATE = keys.new_document()["keys"][0]["d"]
FOREIGN = {"keys": [{**keys.new_document()["keys"][0], "d": PRIVATE}]}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("", "the secret is not set; `dify-kit keys rotate signing --stack unit` makes it"),
        ("k" * 200, "it is not JSON"),
        ("k", "has 1 character; make new ones: `dify-kit keys rotate signing --stack unit`"),
        (json.dumps({"keys": []}) + " " * 100, "no key can sign"),
        (json.dumps(FOREIGN), "keys[0]"),
    ],
    ids=["missing", "no JSON", "short", "empty", "of another key"],
)
def test_bad_signing_keys_are_refused_and_never_shown(value: str, told: str) -> None:
    (line,) = refusal({"oauth": {"enabled": True, "tenants": ACME}}, {"oauthSigningKeys": value})

    assert line.startswith("dify:oauthSigningKeys: ")
    assert told in line
    assert PRIVATE not in line


def test_signing_keys_in_plain_text_are_refused() -> None:
    configure({"oauth": {"enabled": True, "tenants": ACME}})
    every = dict(pulumi.runtime.config.CONFIG.get())
    pulumi.runtime.set_all_config(every, [f"dify:{key}" for key in SECRETS if key != "oauthSigningKeys"])

    with pytest.raises(pulumi.RunError, match="dify:oauthSigningKeys: is stored in plain text"):
        load(pulumi.Config("dify"), "unit")
