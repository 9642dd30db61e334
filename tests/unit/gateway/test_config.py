"""Strict reading of the configuration: every complaint names file, entry, key and fix."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dify_gateway import client_secrets, config
from dify_gateway.reading import FileError
from support.gateway import SECRET, documents
from support.tokens import private_jwk, public_jwk

Files = dict[str, Any]
ISSUER = {"issuer": "https://idp.example", "audience": "dify", "tenant": "acme"}


def load(directory: Path, files: Files) -> config.Configuration:
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (directory / name).write_text(text, encoding="utf-8")
    return config.load(directory, "1")


def test_a_full_configuration(tmp_path: Path) -> None:
    configuration = load(tmp_path, documents())

    assert configuration.clients["acme-app"].scopes == ("chat", "files")
    assert configuration.clients["acme-app"].token_seconds == 3600
    assert configuration.clients["globex-app"].token_seconds == 120
    assert configuration.tenants["acme"].limits == "small"
    assert configuration.tenants["globex"].limits == "default"
    assert configuration.settings.limits.failures_per_client == 5


def test_defaults(tmp_path: Path) -> None:
    files = documents()
    files["config.json"] = {
        "issuer": "https://dify.example.com",
        "redis": {"url": "redis://redis", "seal_key": "k" * 32},
    }

    settings = load(tmp_path, files).settings

    assert settings.audience == settings.issuer
    assert (settings.token_seconds, settings.assertion_seconds) == (3600, 300)
    assert settings.redis_prefix == "dify-gateway:"
    assert (settings.limits.failures_per_client, settings.limits.failures_per_address) == (10, 50)
    assert settings.issuers == {}


def put(file: str, path: str, value: Any) -> Callable[[Files], None]:
    """Return a change that sets a value, `...` removing it."""

    def change(files: Files) -> None:
        target = files[file]
        *parents, last = path.split("/")
        for name in parents:
            target = target[int(name) if isinstance(target, list) else name]
        if value is ...:
            del target[last]
        else:
            target[last] = value

    return change


CONFIG, TENANTS, CLIENTS = "config.json", "tenants.json", "clients.json"
ACME = "clients/acme-app"
SMALL_RSA = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505  # to be refused
EC_KEY = ec.generate_private_key(ec.SECP256R1())

COMPLAINTS: dict[str, tuple[Callable[[Files], None], str]] = {
    "unknown key": (put(CONFIG, "isuer", "x"), r"config\.json: isuer is not a known key"),
    "issuer missing": (put(CONFIG, "issuer", ...), r"config\.json: issuer must be a URL"),
    "issuer with a path": (
        put(CONFIG, "issuer", "https://a.example/"),
        r"config\.json: issuer must have no path",
    ),
    "issuer with a user": (put(CONFIG, "issuer", "https://u:p@a.example"), r"issuer must be a URL"),
    "issuer with a query": (put(CONFIG, "issuer", "https://a.example?x"), r"issuer must be a URL"),
    "issuer of another scheme": (put(CONFIG, "issuer", "ftp://a.example"), r"issuer must be a URL"),
    "issuer with a wrong port": (put(CONFIG, "issuer", "https://a.example:99999"), r"issuer must be a URL"),
    "issuer a number": (put(CONFIG, "issuer", 7), r"issuer must be a URL"),
    "seal missing": (put(CONFIG, "redis/seal_key", ...), r"config\.json: redis\.seal_key must be 32 random"),
    "seal short": (
        put(CONFIG, "redis/seal_key", "short"),
        r"config\.json: redis\.seal_key must be 32 random",
    ),
    "redis missing": (put(CONFIG, "redis", ...), r"config\.json: redis must be an object"),
    "redis of another scheme": (put(CONFIG, "redis/url", "http://x"), r"redis\.url must begin with redis://"),
    "lifetime too long": (
        put(CONFIG, "token_seconds", 86_401),
        r"token_seconds must be a whole number from 60 to",
    ),
    "lifetime a text": (put(CONFIG, "token_seconds", "3600"), r"token_seconds must be a whole number"),
    "lifetime true": (put(CONFIG, "token_seconds", True), r"token_seconds must be a whole number"),
    "limit zero": (
        put(CONFIG, "limits/failures_per_client", 0),
        r"limits\.failures_per_client must be a whole",
    ),
    "limit unknown": (put(CONFIG, "limits/burst", 1), r"limits\.burst is not a known key"),
    "issuers an object": (put(CONFIG, "issuers", {}), r"issuers must be a list of objects"),
    "issuer without tenant": (
        put(CONFIG, "issuers", [{"issuer": "https://i.example", "audience": "a"}]),
        r"issuers\[0\]\.tenant or tenant_claim",
    ),
    "issuer with both": (put(CONFIG, "issuers", [{**ISSUER, "tenant_claim": "t"}]), r"exactly one of them"),
    "issuer's audience missing": (
        put(CONFIG, "issuers", [{"issuer": "https://i.example", "tenant": "acme"}]),
        r"issuers\[0\]\.audience must be",
    ),
    "issuer with HS256": (
        put(CONFIG, "issuers", [{**ISSUER, "algorithms": ["HS256"]}]),
        r"issuers\[0\]\.algorithms may hold only",
    ),
    "issuer with none": (
        put(CONFIG, "issuers", [{**ISSUER, "algorithms": ["none"]}]),
        r"algorithms may hold only",
    ),
    "issuer without algorithms": (put(CONFIG, "issuers", [{**ISSUER, "algorithms": []}]), r"at least one of"),
    "issuer twice": (put(CONFIG, "issuers", [ISSUER, ISSUER]), r"issuers\[1\]\.issuer is this service's own"),
    "own issuer": (
        put(CONFIG, "issuers", [{**ISSUER, "issuer": "https://dify.example.com"}]),
        r"issuers\[0\]\.issuer is this service's own",
    ),
    "issuer's tenant unknown": (
        put(CONFIG, "issuers", [{**ISSUER, "tenant": "nobody"}]),
        r"names the tenant nobody, which tenants\.json lacks",
    ),
    "issuer's mapped tenant unknown": (
        put(
            CONFIG,
            "issuers",
            [
                {
                    "issuer": "https://i.example",
                    "audience": "a",
                    "tenant_claim": "t",
                    "tenants": {"x": "nobody"},
                }
            ],
        ),
        r"names the tenant nobody",
    ),
    "map without a claim": (put(CONFIG, "issuers", [{**ISSUER, "tenants": {}}]), r"tenants maps the values"),
    "claim empty": (
        put(CONFIG, "issuers", [{"issuer": "https://i.example", "audience": "a", "tenant_claim": []}]),
        r"tenant_claim must name a claim",
    ),
    "certificate missing": (
        put(CONFIG, "issuers", [{**ISSUER, "ca_file": "ca.pem"}]),
        r"ca_file names a file",
    ),
    "certificate elsewhere": (
        put(CONFIG, "issuers", [{**ISSUER, "ca_file": "../ca.pem"}]),
        r"ca_file must be",
    ),
    "no tenants": (put(TENANTS, "tenants", []), r"tenants\.json: tenants must be an object"),
    "tenant's name": (put(TENANTS, "tenants/ACME", {}), r"tenants holds an entry whose name is not 1 to 32"),
    "tenant a text": (put(TENANTS, "tenants/acme", "app-x"), r"tenants\.acme must be an object"),
    "app key": (
        put(TENANTS, "tenants/acme/app_key", "dataset-12345678"),
        r"tenants\.acme\.app_key must be a Dify",
    ),
    "app key with a line": (
        put(TENANTS, "tenants/acme/app_key", "app-12345678\r\nX: y"),
        r"app_key must be a Dify",
    ),
    "two tenants on one app": (
        put(TENANTS, "tenants/acme/app_key", documents()[TENANTS]["tenants"]["globex"]["app_key"]),
        r"tenants\.globex\.app_key is also the tenant acme's",
    ),
    "limits": (put(TENANTS, "tenants/acme/limits", "A B"), r"tenants\.acme\.limits must be the name"),
    "client's name": (
        put(CLIENTS, "clients/a b", {}),
        r"clients\.json: clients holds an entry whose name is not",
    ),
    "client's unknown key": (
        put(CLIENTS, f"{ACME}/scope", "chat"),
        r"clients\.acme-app\.scope is not a known key",
    ),
    "client's tenant": (put(CLIENTS, f"{ACME}/tenant", "nobody"), r"clients\.acme-app\.tenant names nobody"),
    "client without tenant": (put(CLIENTS, f"{ACME}/tenant", ...), r"clients\.acme-app\.tenant must be"),
    "client's scope": (put(CLIENTS, f"{ACME}/scopes", ["chat", "admin"]), r"acme-app\.scopes may hold only"),
    "client without scopes": (put(CLIENTS, f"{ACME}/scopes", []), r"acme-app\.scopes must be a list"),
    "client's scope twice": (
        put(CLIENTS, f"{ACME}/scopes", ["chat", "chat"]),
        r"scopes names something twice",
    ),
    "client's scopes a text": (put(CLIENTS, f"{ACME}/scopes", "chat"), r"scopes must be a list"),
    "client's method": (put(CLIENTS, f"{ACME}/auth_method", "none"), r"acme-app\.auth_method must be one of"),
    "client's method a list": (put(CLIENTS, f"{ACME}/auth_method", ["none"]), r"auth_method must be one of"),
    "client without secret": (
        put(CLIENTS, f"{ACME}/secrets", ...),
        r"acme-app\.secrets must be a list of 1 to 2",
    ),
    "three secrets": (put(CLIENTS, f"{ACME}/secrets", ["a", "b", "c"]), r"secrets must be a list of 1 to 2"),
    "plain secret": (
        put(CLIENTS, f"{ACME}/secrets", [SECRET]),
        r"acme-app\.secrets holds something that is not a",
    ),
    "secret beside keys": (
        put(CLIENTS, "clients/signer/secrets", ["x"]),
        r"clients\.signer\.secrets has no meaning with the auth_method private_key_jwt",
    ),
    "keys beside a secret": (put(CLIENTS, f"{ACME}/jwks", {"keys": []}), r"acme-app\.jwks has no meaning"),
    "no keys": (
        put(CLIENTS, "clients/signer/jwks", {"keys": []}),
        r"signer\.jwks\.keys must be a list of 1 to 10",
    ),
    "private key": (
        put(CLIENTS, "clients/signer/jwks", {"keys": [private_jwk(EC_KEY, "k")]}),
        r"signer\.jwks\.keys\[0\] holds a private key",
    ),
    "shared key": (
        put(CLIENTS, "clients/signer/jwks", {"keys": [{"kty": "oct", "kid": "k", "k": "AAAA"}]}),
        r"jwks\.keys\[0\] holds a private key",
    ),
    "small key": (
        put(CLIENTS, "clients/signer/jwks", {"keys": [public_jwk(SMALL_RSA, "k")]}),
        r"jwks\.keys\[0\] must be an EC key .* or an RSA key of 2048 bits",
    ),
    "key without kid": (
        put(CLIENTS, "clients/signer/jwks", {"keys": [{"kty": "EC"}]}),
        r"jwks\.keys\[0\] must be a JWK with a kid",
    ),
    "broken key": (
        put(CLIENTS, "clients/signer/jwks", {"keys": [{**public_jwk(EC_KEY, "k"), "x": "AAAA"}]}),
        r"jwks\.keys\[0\] must be an EC key",
    ),
    "key to encrypt with": (
        put(CLIENTS, "clients/signer/jwks", {"keys": [public_jwk(EC_KEY, "k", use="enc")]}),
        r"jwks\.keys\[0\] must be an EC key",
    ),
    "kid twice": (
        put(CLIENTS, "clients/signer/jwks", {"keys": [public_jwk(EC_KEY, "k")] * 2}),
        r"jwks\.keys has the same kid twice",
    ),
    "disabled a text": (put(CLIENTS, f"{ACME}/disabled", "yes"), r"acme-app\.disabled must be true or false"),
    "not before a date": (
        put(CLIENTS, f"{ACME}/not_before", "2026-01-01"),
        r"not_before must be a whole number",
    ),
    "no signing key": (put("keys.json", "keys", []), r"keys\.json: no key can sign"),
}


@pytest.mark.parametrize("name", COMPLAINTS)
def test_complaint_names_file_entry_and_key(tmp_path: Path, name: str) -> None:
    change, named = COMPLAINTS[name]
    files = documents()
    change(files)

    with pytest.raises(FileError, match=named) as problem:
        load(tmp_path, files)

    for secret in (SECRET, "redis-password", documents()["keys.json"]["keys"][0]["d"]):
        assert secret not in str(problem.value)


@pytest.mark.parametrize("file", config.FILES)
@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", r"is not JSON \(line 1, column 1"),
        ('{"a": 1,}', "is not JSON"),
        ("[]", "must hold a JSON object"),
        ('{"a": 1, "a": 2}', "the key a stands twice"),
        ("[" * 100_000, "is nested too deeply"),
    ],
)
def test_files_that_are_no_json_object(tmp_path: Path, file: str, text: str, named: str) -> None:
    with pytest.raises(FileError, match=rf"{file}: .*{named}"):
        load(tmp_path, {**documents(), file: text})


@pytest.mark.parametrize("file", config.FILES)
def test_missing_files(tmp_path: Path, file: str) -> None:
    files = documents()
    del files[file]

    with pytest.raises(FileError, match=rf"{file}: is missing"):
        load(tmp_path, files)


def test_files_that_are_not_text(tmp_path: Path) -> None:
    load(tmp_path, documents())
    (tmp_path / "clients.json").write_bytes(b'{"clients": {"\xff": {}}}')

    with pytest.raises(FileError, match=r"clients\.json: cannot be read \(not UTF-8\)"):
        config.load(tmp_path, "1")


def test_a_repeated_client_is_refused(tmp_path: Path) -> None:
    entry = json.dumps(documents()["clients.json"]["clients"]["acme-app"])
    text = f'{{"clients": {{"twice": {entry}, "twice": {entry}}}}}'

    with pytest.raises(FileError, match="the key twice stands twice"):
        load(tmp_path, {**documents(), "clients.json": text})


def test_ten_thousand_clients_are_read_within_a_second(tmp_path: Path) -> None:
    files = documents()
    files["tenants.json"] = {"tenants": {f"tenant-{n}": {"app_key": f"app-{n:016d}"} for n in range(50)}}
    hashed = client_secrets.hash_secret(SECRET)
    files["clients.json"] = {
        "clients": {
            f"client-{n}": {"tenant": f"tenant-{n % 50}", "scopes": ["chat", "files"], "secrets": [hashed]}
            for n in range(10_000)
        }
    }
    started = time.process_time()

    configuration = load(tmp_path, files)

    assert time.process_time() - started < 1
    assert len(configuration.clients) == 10_000
