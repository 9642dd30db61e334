"""The configuration: config.json, tenants.json, clients.json and keys.json of one revision, validated."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey, import_key

from dify_gateway import client_secrets, entries, jose, keys
from dify_gateway.gate_config import GateSettings, read_gate
from dify_gateway.reading import Entry, FileError, read

FILES = ("config.json", "tenants.json", "clients.json", "keys.json")
# The scopes of tokens. nginx maps routes to scopes.
SCOPES = ("chat", "workflows", "files", "conversations", "llm")
SECRET_BASIC, SECRET_POST, PRIVATE_KEY = "client_secret_basic", "client_secret_post", "private_key_jwt"
AUTH_METHODS: Final = {
    # A client with a secret may send it in the header or in the form, as libraries do by default.
    "client_secret": frozenset({SECRET_BASIC, SECRET_POST}),
    SECRET_BASIC: frozenset({SECRET_BASIC}),
    SECRET_POST: frozenset({SECRET_POST}),
    PRIVATE_KEY: frozenset({PRIVATE_KEY}),
}
EXTERNAL_ALGORITHMS = ("RS256", "PS256", "ES256")
MOST_SECRETS = 2
MOST_CLIENT_KEYS = 10
SHORTEST_TOKEN_SECONDS = 60
DEFAULT_TOKEN_SECONDS = 3600

CLIENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
APP_KEY = re.compile(r"app-[A-Za-z0-9_-]{8,64}", re.ASCII)
ANY_TEXT = entries.ANY_TEXT
SEAL_KEY = re.compile(r"[!-~]{32,512}", re.ASCII)
WORD = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
# A tenant's name is also the name of its limits at the edge.
TENANT = WORD
HASH = re.compile(r"[A-Za-z0-9_$-]{1,200}", re.ASCII)
CLIENT_ID_RULE = "1 to 64 letters, digits, dots, hyphens and underscores, the first a letter or digit"
TENANT_RULE = "1 to 32 lower-case letters, digits and hyphens, the first not a hyphen"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The number of failed authentications within a window (seconds) before the answer is 429."""

    failures_per_client: int
    failures_per_address: int
    window_seconds: int


@dataclass(frozen=True, kw_only=True)
class Issuer:
    """An external issuer of access tokens. Exactly one of `tenant` and `tenant_claim` is set."""

    issuer: str
    audience: str
    jwks_uri: str
    tenant: str
    tenant_claim: tuple[str, ...]
    tenants: tuple[tuple[str, str], ...]
    scope_claim: tuple[str, ...]
    subject_claim: str
    algorithms: tuple[str, ...]
    skew_seconds: int
    refresh_seconds: int
    refetch_seconds: int
    ca_file: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """config.json. `redis_url` may contain a password and `seal_key` is a secret: never log them.

    Without an issuer the service neither issues nor accepts tokens and serves the gate alone.
    """

    issuer: str
    audience: str
    token_seconds: int
    assertion_seconds: int
    redis_url: str
    redis_prefix: str
    seal_key: str
    limits: Limits
    issuers: Mapping[str, Issuer]
    gate: GateSettings | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Tenant:
    """A tenant: the Dify app key of its requests, and the name of its class of limits."""

    name: str
    app_key: str
    limits: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Client:
    """An OAuth client. `hashes` are (salt, digest) pairs; `keys` verify its assertions."""

    id: str
    tenant: str
    scopes: tuple[str, ...]
    methods: frozenset[str]
    hashes: tuple[tuple[bytes, bytes], ...]
    keys: tuple[jose.VerificationKey, ...]
    token_seconds: int
    disabled: bool
    not_before: int


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """The validated contents of one revision directory, immutable."""

    revision: str
    directory: Path
    settings: Settings
    tenants: Mapping[str, Tenant]
    clients: Mapping[str, Client]
    keys: tuple[keys.SigningKey, ...]
    verification_keys: tuple[jose.VerificationKey, ...]


def load(directory: Path, revision: str) -> Configuration:
    """Read and validate a revision directory. Raises FileError with the first problem found."""
    settings = _settings(read(directory, "config.json"), directory)
    if not settings.issuer:
        return Configuration(
            revision=revision,
            directory=directory,
            settings=settings,
            tenants={},
            clients={},
            keys=(),
            verification_keys=(),
        )
    tenants = _tenants(read(directory, "tenants.json"))
    clients = _clients(read(directory, "clients.json"), settings, tenants)
    for issuer in settings.issuers.values():
        for tenant in ([issuer.tenant] if issuer.tenant else []) + [to for _, to in issuer.tenants]:
            if tenant not in tenants:
                raise FileError(
                    f"config.json: issuers names the tenant {tenant}, which tenants.json lacks: add it there"
                )
    signing = _keys(read(directory, "keys.json"))
    return Configuration(
        revision=revision,
        directory=directory,
        settings=settings,
        tenants=tenants,
        clients=clients,
        keys=signing,
        verification_keys=tuple(jose.verification_key(key.jwk) for key in signing),
    )


def _settings(entry: Entry, directory: Path) -> Settings:
    entry.only(
        {"issuer", "audience", "token_seconds", "assertion_seconds", "redis", "limits", "issuers", "gate"}
    )
    gate = read_gate(entry.inner("gate"), directory) if "gate" in entry.values else None
    issuer = "" if gate and "issuer" not in entry.values else entries.url(entry, "issuer", bare=True)
    redis = entry.inner("redis")
    redis.only({"url", "prefix", "seal_key"})
    url = redis.text("url", ANY_TEXT, "redis://[:password@]host[:port]/[db], the password percent-encoded")
    if urlsplit(url).scheme not in {"redis", "rediss", "unix"}:
        redis.fail("url", "must begin with redis://, rediss:// or unix://")
    limits = entry.inner("limits", {})
    limits.only({"failures_per_client", "failures_per_address", "window_seconds"})
    issuers = entry.values.get("issuers", [])
    if not isinstance(issuers, list) or not all(isinstance(each, Mapping) for each in issuers):
        entry.fail("issuers", "must be a list of objects")
    external: dict[str, Issuer] = {}
    for number, each in enumerate(issuers):
        child = Entry(entry.file, f"issuers[{number}]", each)
        read_issuer = _issuer(child, directory)
        if read_issuer.issuer == issuer or read_issuer.issuer in external:
            child.fail("issuer", "is this service's own issuer or occurs twice: remove one of them")
        external[read_issuer.issuer] = read_issuer
    return Settings(
        issuer=issuer,
        audience=entry.text("audience", ANY_TEXT, "a text, usually a URL", issuer) if issuer else "",
        token_seconds=_token_seconds(entry, DEFAULT_TOKEN_SECONDS),
        assertion_seconds=entry.whole("assertion_seconds", 30, 3600, 300),
        redis_url=url,
        redis_prefix=redis.text("prefix", ANY_TEXT, "a text", "dify-gateway:"),
        seal_key=redis.text("seal_key", SEAL_KEY, "32 random characters or more: `openssl rand -hex 32`"),
        limits=Limits(
            failures_per_client=limits.whole("failures_per_client", 1, 10_000, 10),
            failures_per_address=limits.whole("failures_per_address", 1, 100_000, 50),
            window_seconds=limits.whole("window_seconds", 1, 3600, 60),
        ),
        issuers=external,
        gate=gate,
    )


def _issuer(entry: Entry, directory: Path) -> Issuer:
    entry.only(set(Issuer.__dataclass_fields__))
    if ("tenant" in entry.values) == ("tenant_claim" in entry.values):
        entry.fail("tenant", "or tenant_claim: set exactly one of them, it determines the tenant of a token")
    if "tenants" in entry.values and "tenant_claim" not in entry.values:
        entry.fail("tenants", "maps values of tenant_claim, which is missing: add it, or remove this key")
    mapped = dict(entry.inner("tenants", {}).values)
    if not all(isinstance(to, str) and TENANT.fullmatch(to) for to in mapped.values()):
        entry.fail("tenants", f"must map claim values to tenants, each {TENANT_RULE}")
    return Issuer(
        issuer=entries.url(entry, "issuer"),
        audience=entry.text("audience", ANY_TEXT, "the `aud` that the issuer sets for this API"),
        jwks_uri=entries.url(entry, "jwks_uri") if "jwks_uri" in entry.values else "",
        tenant=entry.text("tenant", TENANT, TENANT_RULE) if "tenant" in entry.values else "",
        tenant_claim=entries.claim(entry, "tenant_claim", []),
        tenants=tuple(sorted(mapped.items())),
        scope_claim=entries.claim(entry, "scope_claim", "scope"),
        subject_claim=entry.text("subject_claim", ANY_TEXT, "the name of a claim", "sub"),
        algorithms=entry.texts("algorithms", jose.KEY_TYPES, EXTERNAL_ALGORITHMS),
        skew_seconds=entry.whole("skew_seconds", 0, 300, 30),
        refresh_seconds=entry.whole("refresh_seconds", 10, 86_400, 300),
        refetch_seconds=entry.whole("refetch_seconds", 1, 3600, 10),
        ca_file=entries.ca_file(entry, directory),
    )


def _tenants(entry: Entry) -> dict[str, Tenant]:
    entry.only({"tenants"})
    tenants: dict[str, Tenant] = {}
    owners: dict[str, str] = {}
    for name, child in entry.children("tenants", TENANT, TENANT_RULE):
        child.only({"app_key", "limits"})
        key = child.text("app_key", APP_KEY, "a Dify app key: app- and 8 to 64 letters, digits, _ or -")
        if key in owners:
            # Dify trusts the `user` of a request: two tenants on one app could read each other's conversations.
            child.fail(
                "app_key", f"is also the key of the tenant {owners[key]}: give each tenant an app of its own"
            )
        owners[key] = name
        limits = child.text("limits", WORD, "the name of a class of limits", "default")
        tenants[name] = Tenant(name=name, app_key=key, limits=limits)
    return tenants


CLIENT_KEYS = {
    "tenant",
    "scopes",
    "auth_method",
    "secrets",
    "jwks",
    "token_seconds",
    "disabled",
    "not_before",
}


def _clients(entry: Entry, settings: Settings, tenants: Mapping[str, Tenant]) -> dict[str, Client]:
    entry.only({"clients"})
    clients: dict[str, Client] = {}
    for name, child in entry.children("clients", CLIENT_ID, CLIENT_ID_RULE):
        child.only(CLIENT_KEYS)
        tenant = child.text("tenant", TENANT, TENANT_RULE)
        if tenant not in tenants:
            child.fail(
                "tenant", f"names {tenant}, which tenants.json lacks: add it there, or remove the client"
            )
        method = child.values.get("auth_method", "client_secret")
        if not isinstance(method, str) or method not in AUTH_METHODS:
            child.fail("auth_method", f"must be one of {', '.join(AUTH_METHODS)}")
        has, lacks = ("jwks", "secrets") if method == PRIVATE_KEY else ("secrets", "jwks")
        if lacks in child.values:
            child.fail(lacks, f"is not used with the auth_method {method}: remove it")
        clients[name] = Client(
            id=name,
            # Equal tenants and scope sets are shared objects: there may be many clients.
            tenant=tenants[tenant].name,
            scopes=_interned(child.texts("scopes", SCOPES)),
            methods=AUTH_METHODS[method],
            hashes=_hashes(child) if has == "secrets" else (),
            keys=_client_keys(child) if has == "jwks" else (),
            token_seconds=_token_seconds(child, settings.token_seconds),
            disabled=child.flag("disabled", default=False),
            not_before=child.whole("not_before", 0, 2**40, 0),
        )
    return clients


_SCOPES: dict[tuple[str, ...], tuple[str, ...]] = {}


def _interned(scopes: tuple[str, ...]) -> tuple[str, ...]:
    return _SCOPES.setdefault(scopes, scopes)


def _token_seconds(entry: Entry, default: int) -> int:
    return entry.whole("token_seconds", SHORTEST_TOKEN_SECONDS, keys.LONGEST_TOKEN_SECONDS, default)


def _hashes(entry: Entry) -> tuple[tuple[bytes, bytes], ...]:
    stored = entry.values.get("secrets")
    if not isinstance(stored, list) or not 1 <= len(stored) <= MOST_SECRETS:
        entry.fail("secrets", f"must be a list of 1 to {MOST_SECRETS} hashes made by `dify-kit client`")
    hashes = []
    for each in stored:
        if not isinstance(each, str) or not HASH.fullmatch(each):
            entry.fail("secrets", f"must contain hashes of the format {client_secrets.FORMAT}$salt$digest")
        try:
            hashes.append(client_secrets.parse_hash(each))
        except client_secrets.SecretError as problem:
            entry.fail(
                "secrets", f"contains an item that is {problem}: make a hash with `dify-kit client rotate`"
            )
    return tuple(hashes)


def _client_keys(entry: Entry) -> tuple[jose.VerificationKey, ...]:
    listed = entry.inner("jwks").values.get("keys")
    if not isinstance(listed, list) or not 1 <= len(listed) <= MOST_CLIENT_KEYS:
        entry.fail("jwks.keys", f"must be a list of 1 to {MOST_CLIENT_KEYS} public JWKs")
    found = []
    for number, jwk in enumerate(listed):
        where = f"jwks.keys[{number}]"
        if not isinstance(jwk, Mapping) or not isinstance(jwk.get("kid"), str):
            entry.fail(where, "must be a JWK with a kid")
        if {"d", "p", "q", "k"} & set(jwk):
            entry.fail(where, "contains a private key: leave it with the client and put its public part here")
        key = public_key(jwk)
        if key is None or not key.algorithms:
            smallest = jose.SMALLEST_RSA_BITS
            entry.fail(
                where, f"must be an EC key (P-256, P-384, P-521) or an RSA key of {smallest} bits or more"
            )
        found.append(key)
    if len({key.kid for key in found}) != len(found):
        entry.fail("jwks.keys", "has the same kid twice: give each key a kid of its own")
    return tuple(found)


def public_key(jwk: Mapping[str, Any]) -> jose.VerificationKey | None:
    """Return the verification key of a JWK, None when the JWK is unusable."""
    if jwk.get("kty") not in {"EC", "RSA"} or "d" in jwk:
        return None
    try:
        key = import_key(dict(jwk))
        return jose.verification_key(key) if isinstance(key, ECKey | RSAKey) else None
    except (JoseError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _keys(entry: Entry) -> tuple[keys.SigningKey, ...]:
    try:
        return keys.read_document(entry.values)
    except keys.KeyDocumentError as problem:
        raise FileError(f"{entry.file}: {problem}") from None
