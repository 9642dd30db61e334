"""External issuers: their keys by OIDC discovery, cached and renewed, and the mapping of their claims.

`iss` of a token selects one of the configured issuers by exact match, nothing more. The only URLs ever fetched
are the configured issuer's discovery document and the `jwks_uri` that it (or the configuration) names.
"""

import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from dify_gateway import jose, log
from dify_gateway.config import SCOPES, Issuer, public_key
from dify_gateway.state import UnavailableError

# A request that waits longer than one second for a fetch is a 503 at nginx; the next one finds the keys.
FETCH_SECONDS = 2.0
# Threads that may wait for another thread's fetch; more would let a slow issuer block all requests.
MOST_WAITING = 3
WAIT_FOR_FETCH_SECONDS = 0.5
MOST_BYTES = 262_144
MOST_KEYS = 100
# Keys that could not be renewed for this many seconds are no longer trusted.
STALE_SECONDS = 3600
DISCOVERY = "/.well-known/openid-configuration"
# `typ` of access tokens; many issuers use the generic one, some omit it.
TYPES: Final = frozenset({"at+jwt", "application/at+jwt", "jwt", ""})
# Claims of ID tokens only, which are not accepted as access tokens.
ID_TOKEN_CLAIMS: Final = frozenset({"at_hash", "c_hash", "s_hash"})
# Keycloak has the purpose of a token in this claim.
OTHER_KINDS: Final = frozenset({"ID", "Refresh", "Offline", "Logout"})
MOST_SUBJECT = 255

Fetch = Callable[[str, str], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class ExternalToken:
    """The mapped claims of a verified token of an external issuer. `expires_at` is seconds of the epoch."""

    subject: str
    tenant: str
    scopes: tuple[str, ...]
    expires_at: float


class IssuerKeys:
    """The keys of one issuer. `ca_file` is a path, or empty for the system's authorities."""

    def __init__(self, issuer: Issuer, fetch: Fetch, ca_file: str) -> None:
        self.issuer = issuer
        self.ca_file = ca_file
        self._fetch = fetch
        self._keys: tuple[jose.VerificationKey, ...] = ()
        self._read_at = float("-inf")
        # Two timers: a renewal in the background must not delay the fetch of a key that is newer than it.
        self._tried_at = float("-inf")
        self._asked_at = float("-inf")
        self._lock = threading.Lock()
        self._waiting = threading.BoundedSemaphore(MOST_WAITING)

    def verify(self, token: jose.Unverified) -> None:
        """Verify a token's signature; refetch the keys for an unknown kid, at most once per `refetch_seconds`.

        Raises BadTokenError, or UnavailableError while there are no current keys.
        """
        if time.monotonic() - self._read_at > STALE_SECONDS:
            self._renew()
        if time.monotonic() - self._read_at > STALE_SECONDS:
            raise UnavailableError(f"no current keys of the issuer {self.issuer.issuer}")
        known = self._keys
        try:
            jose.verify(token, known, self.issuer.algorithms)
        except jose.UnknownKeyError:
            self._renew(known)
            if self._keys is known:
                raise
            jose.verify(token, self._keys, self.issuer.algorithms)

    def renew_when_due(self) -> None:
        """Fetch the keys when they are older than configured, or were never read."""
        if time.monotonic() - self._read_at > self.issuer.refresh_seconds:
            self._renew()

    def problem(self) -> str:
        """Return what is wrong, for /healthz; empty when nothing is."""
        if time.monotonic() - self._read_at > STALE_SECONDS:
            return f"issuer {self.issuer.issuer}: no current keys"
        return ""

    def _renew(self, known: tuple[jose.VerificationKey, ...] | None = None) -> None:
        """Fetch the keys, unless another thread just tried. Keeps the current ones when that fails.

        `known` are the keys that did not fit a token: such fetches have a timer of their own, as anyone can cause them.
        """
        if not self._lock.acquire(blocking=False):
            self._wait_for_fetch()
        try:
            fetched_by_other = known is not None and self._keys is not known
            last = self._tried_at if known is None else self._asked_at
            if fetched_by_other or time.monotonic() - last < self.issuer.refetch_seconds:
                return
            if known is None:
                self._tried_at = time.monotonic()
            else:
                self._asked_at = time.monotonic()
            try:
                keys = self._read()
            except IssuerError as problem:
                log.write("issuer", level="error", issuer=self.issuer.issuer, problem=str(problem))
                return
            self._read_at = time.monotonic()
            if [key.jwk.as_dict() for key in keys] != [key.jwk.as_dict() for key in self._keys]:
                self._keys = keys
                log.write("issuer", issuer=self.issuer.issuer, keys=[key.kid for key in keys])
        finally:
            self._lock.release()

    def _wait_for_fetch(self) -> None:
        """Acquire the lock after the fetch of another thread. Raises UnavailableError."""
        fetched = False
        if self._waiting.acquire(blocking=False):
            try:
                fetched = self._lock.acquire(timeout=WAIT_FOR_FETCH_SECONDS)
            finally:
                self._waiting.release()
        if not fetched:
            raise UnavailableError(f"the keys of the issuer {self.issuer.issuer} are being fetched")

    def _read(self) -> tuple[jose.VerificationKey, ...]:
        uri = self.issuer.jwks_uri or self._discover()
        listed = self._fetch(uri, self.ca_file).get("keys")
        if not isinstance(listed, list):
            raise IssuerError(f"{uri} contains no list of keys")
        found = [public_key(each) for each in listed[:MOST_KEYS] if isinstance(each, Mapping)]
        usable = tuple(key for key in found if key is not None and key.algorithms)
        if not usable:
            raise IssuerError(f"{uri} contains no key for an algorithm that this service supports")
        return usable

    def _discover(self) -> str:
        return endpoint(self.issuer, self._document(), "jwks_uri")

    def _document(self) -> Mapping[str, Any]:
        """Return the issuer's discovery document, whose `issuer` must match. Raises IssuerError."""
        address = self.issuer.issuer.rstrip("/") + DISCOVERY
        document = self._fetch(address, self.ca_file)
        if document.get("issuer") != self.issuer.issuer:
            raise IssuerError(f"{address} has another issuer: copy its `issuer` exactly into the settings")
        return document


def endpoint(issuer: Issuer, document: Mapping[str, Any], name: str) -> str:
    """Return an endpoint of a discovery document, https if the issuer's URL is. Raises IssuerError."""
    uri = document.get(name)
    plain = not issuer.issuer.startswith("https://")
    if not isinstance(uri, str) or not uri.startswith(("https://", "http://") if plain else "https://"):
        raise IssuerError(f"{issuer.issuer.rstrip('/')}{DISCOVERY} has no usable {name}")
    return uri


class IssuerError(Exception):
    """An issuer's documents could not be read. The message names the URL and the problem."""


class Issuers:
    """All external issuers of a configuration."""

    def __init__(
        self,
        configured: Mapping[str, Issuer],
        directory: Path,
        *,
        fetch: Fetch | None = None,
        before: "Issuers | None" = None,
    ) -> None:
        """Take over the keys of issuers that are unchanged since the previous configuration."""
        known = before.all if before else {}
        self.all: dict[str, IssuerKeys] = {}
        for name, issuer in configured.items():
            ca_file = str(directory / issuer.ca_file) if issuer.ca_file else ""
            old = known.get(name)
            same = old is not None and old.issuer == issuer and not issuer.ca_file
            self.all[name] = old if old and same else IssuerKeys(issuer, fetch or fetch_json, ca_file)

    def verify(self, token: jose.Unverified, tenants: Iterable[str], now: float) -> ExternalToken:
        """Verify a token of an external issuer. Raises BadTokenError or UnavailableError."""
        name = token.claims.get("iss")
        keys = self.all.get(name) if isinstance(name, str) else None
        if keys is None:
            raise jose.BadTokenError("unknown issuer")
        kind = token.header.get("typ", "")
        if not isinstance(kind, str) or kind.lower() not in TYPES:
            raise jose.BadTokenError("not the type of an access token")
        keys.verify(token)
        return read_claims(keys.issuer, token.claims, tenants, now)

    def renew_when_due(self) -> None:
        """Fetch the keys that are due. Problems are logged."""
        for keys in self.all.values():
            try:
                keys.renew_when_due()
            except UnavailableError:
                continue  # a request is fetching it right now

    def problems(self) -> list[str]:
        """Return what is wrong, for /healthz."""
        return [problem for keys in self.all.values() if (problem := keys.problem())]


def read_claims(
    issuer: Issuer, claims: Mapping[str, Any], tenants: Iterable[str], now: float
) -> ExternalToken:
    """Check the claims of a token with a valid signature. Raises BadTokenError."""
    audience = claims.get("aud")
    if issuer.audience not in (audience if isinstance(audience, list) else [audience]):
        raise jose.BadTokenError("wrong audience")
    if ID_TOKEN_CLAIMS & claims.keys() or claims.get("typ") in OTHER_KINDS:
        raise jose.BadTokenError("not an access token")
    expires_at = _time(claims, "exp")
    if expires_at is None or expires_at + issuer.skew_seconds <= now:
        raise jose.BadTokenError("expired")
    for name in ("nbf", "iat"):
        if (_time(claims, name) or 0) > now + issuer.skew_seconds:
            raise jose.BadTokenError("from the future")
    tenant = issuer.tenant or _tenant(issuer, claims)
    if tenant not in tenants:
        raise jose.BadTokenError("tenant unknown")
    subject = claims.get(issuer.subject_claim)
    if not isinstance(subject, str) or not (subject.isascii() and subject.isprintable()):
        raise jose.BadTokenError("subject is not a text")
    # It is sent in a header.
    if not 0 < len(subject) <= MOST_SUBJECT or subject != subject.strip():
        raise jose.BadTokenError("subject is not a text")
    return ExternalToken(
        subject=subject,
        tenant=tenant,
        scopes=_scopes(issuer, claims),
        expires_at=expires_at + issuer.skew_seconds,
    )


def _tenant(issuer: Issuer, claims: Mapping[str, Any]) -> str:
    """Return the mapped tenant claim; the caller checks that such a tenant is configured."""
    value = at(claims, issuer.tenant_claim)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        raise jose.BadTokenError("no tenant claim")
    return dict(issuer.tenants).get(value, "") if issuer.tenants else value


def _scopes(issuer: Issuer, claims: Mapping[str, Any]) -> tuple[str, ...]:
    value = at(claims, issuer.scope_claim)
    given = value.split(" ") if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(scope for scope in SCOPES if scope in given)


def at(claims: Mapping[str, Any], path: tuple[str, ...]) -> Any:  # noqa: ANN401  # whatever JSON holds
    """Return the member at a path of names, None when there is none."""
    value: Any = claims
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if type(value) not in {int, float} or not 0 <= value < 2**40:  # far beyond every real date
        raise jose.BadTokenError(f"claim {name} is not a time")
    return float(value)


def _trust(ca_file: str) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities, or only those of the file."""
    trust = ssl.create_default_context(cafile=ca_file or None)
    if ca_file:
        # From Python 3.13 on certificates need an Authority Key Identifier, which `openssl x509 -req` leaves out: those
        # of private CAs often have none. Chain, name and dates are verified as usual.
        trust.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return trust


def fetch_json(address: str, ca_file: str) -> Mapping[str, Any]:
    """Return the JSON object at a URL. Raises IssuerError."""
    try:
        with (
            httpx.Client(verify=_trust(ca_file), timeout=FETCH_SECONDS, follow_redirects=False) as client,
            client.stream("GET", address, headers={"Accept": "application/json"}) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise IssuerError(f"{address} answered with status {answer.status_code}")
            data = b""
            deadline = time.monotonic() + FETCH_SECONDS
            for chunk in answer.iter_bytes():
                data += chunk
                if len(data) > MOST_BYTES or time.monotonic() > deadline:
                    raise IssuerError(f"{address} sends more than {MOST_BYTES} bytes, or sends too slowly")
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as problem:
        raise IssuerError(f"{address}: {type(problem).__name__}: {problem}") from None
    try:
        return jose.json_object(data)
    except jose.BadTokenError as problem:
        raise IssuerError(f"{address}: {problem}") from None
