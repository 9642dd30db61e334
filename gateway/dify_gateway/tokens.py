"""This service's own access tokens: JWTs of RFC 9068, signed with ES256."""

import base64
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from joserfc.jws import serialize_compact

from dify_gateway import jose, keys
from dify_gateway.config import Client, Configuration

TYPE: Final = "at+jwt"
HEADER: Final = frozenset({"alg", "typ", "kid"})
# Order of the curve's group. (r, s) and (r, N - s) are both valid signatures; only the one with the smaller s is made
# and accepted, so that a token has exactly one encoding.
N: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
NUMBER_BYTES = 32
JTI_BYTES = 16
# The accepted difference of two machines' clocks, in seconds.
SKEW_SECONDS = 5
ALGORITHMS = (keys.ALGORITHM,)


@dataclass(frozen=True, kw_only=True)
class AccessToken:
    """The claims of a verified token of this service. Times are seconds of the epoch."""

    client_id: str
    tenant: str
    scopes: tuple[str, ...]
    jti: str
    issued_at: int
    expires_at: int


def issue(
    configuration: Configuration, client: Client, scopes: Sequence[str], now: float | None = None
) -> str:
    """Return a new access token for a client."""
    moment = time.time() if now is None else now
    claims = {
        "iss": configuration.settings.issuer,
        "sub": client.id,
        "aud": configuration.settings.audience,
        "client_id": client.id,
        "iat": int(moment),
        "exp": int(moment) + client.token_seconds,
        "jti": secrets.token_urlsafe(JTI_BYTES),
        "scope": " ".join(scopes),
        "tenant": client.tenant,
    }
    key = keys.signing_key(configuration.keys, moment)
    header = {"alg": keys.ALGORITHM, "typ": TYPE, "kid": key.kid}
    payload = json.dumps(claims, separators=(",", ":"))
    return _canonical(serialize_compact(header, payload, key.jwk, algorithms=list(ALGORITHMS)))


def verify(configuration: Configuration, token: jose.Unverified, now: float) -> AccessToken:
    """Verify a token of this service: signature, header, claims, and that its client may still use it.

    Raises BadTokenError or its UnknownKeyError and StaleConfigError. The caller checks revocation.
    """
    if token.header.keys() != HEADER or token.header["typ"] != TYPE:
        raise jose.BadTokenError("not the header of an access token")
    if len(token.signature) != 2 * NUMBER_BYTES or _s(token.signature) > N // 2:
        raise jose.BadTokenError("not the canonical form of a signature")
    jose.verify(token, configuration.verification_keys, ALGORITHMS)
    claims = token.claims
    read = AccessToken(
        client_id=_text(claims, "client_id"),
        tenant=_text(claims, "tenant"),
        scopes=tuple(_text(claims, "scope").split(" ")),
        jti=_text(claims, "jti"),
        issued_at=_time(claims, "iat"),
        expires_at=_time(claims, "exp"),
    )
    if claims.get("iss") != configuration.settings.issuer:
        raise jose.BadTokenError("wrong issuer")
    if claims.get("aud") != configuration.settings.audience:
        raise jose.BadTokenError("wrong audience")
    if claims.get("sub") != read.client_id:
        raise jose.BadTokenError("subject is not the client")
    if read.expires_at <= now:
        raise jose.BadTokenError("expired")
    # This service does not issue `nbf`, but another holder of its key may.
    if max(read.issued_at, _time(claims, "nbf", read.issued_at)) > now + SKEW_SECONDS:
        raise jose.BadTokenError("from the future")
    if read.expires_at - read.issued_at > keys.LONGEST_TOKEN_SECONDS:
        raise jose.BadTokenError("lives too long")
    return _still_allowed(configuration, read)


class StaleConfigError(jose.BadTokenError):
    """A token that the loaded configuration does not allow, but a newer one may."""


def _still_allowed(configuration: Configuration, token: AccessToken) -> AccessToken:
    client = configuration.clients.get(token.client_id)
    if client is None or client.disabled:
        raise StaleConfigError("client unknown or disabled")
    if client.tenant != token.tenant or client.tenant not in configuration.tenants:
        raise StaleConfigError("tenant changed or removed")
    if token.issued_at < client.not_before:
        raise StaleConfigError("issued before the client's not_before")
    # A scope that is removed from the client is removed from its tokens too.
    scopes = tuple(scope for scope in token.scopes if scope in client.scopes)
    return AccessToken(
        client_id=token.client_id,
        tenant=token.tenant,
        scopes=scopes,
        jti=token.jti,
        issued_at=token.issued_at,
        expires_at=token.expires_at,
    )


def _canonical(token: str) -> str:
    signed, _, text = token.rpartition(".")
    signature = base64.urlsafe_b64decode(text + "==")
    low = min(_s(signature), N - _s(signature))
    fixed = signature[:NUMBER_BYTES] + low.to_bytes(NUMBER_BYTES, "big")
    return f"{signed}.{base64.urlsafe_b64encode(fixed).rstrip(b'=').decode()}"


def _s(signature: bytes) -> int:
    return int.from_bytes(signature[NUMBER_BYTES:], "big")


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise jose.BadTokenError(f"claim {name} is not a text")
    return value


def _time(claims: dict[str, Any], name: str, default: int | None = None) -> int:
    value = claims.get(name, default)
    if type(value) is not int or value < 0:
        raise jose.BadTokenError(f"claim {name} is not a whole number")
    return value
