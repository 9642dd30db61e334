"""Client authentication by a signed assertion: `private_key_jwt`, RFC 7523 section 2.2.

Authlib reads the form, finds the client and checks that the client may authenticate this way. The assertion itself
is verified here, with the same strict parser as every other token.
"""

import time
from collections.abc import Callable
from typing import Any

from authlib.oauth2.rfc6749 import InvalidClientError
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion

from dify_gateway import jose
from dify_gateway.config import PRIVATE_KEY, Client, Settings
from dify_gateway.state import State

SKEW_SECONDS = 5
LONGEST_JTI = 128
# Assertions and access tokens have different types, so neither is accepted as the other.
TYPES = frozenset({"jwt", "client-authentication+jwt", ""})
# The audiences that client libraries use: RFC 7523 names the token endpoint, later drafts the issuer.
ALGORITHMS = tuple(jose.KEY_TYPES)


class PrivateKeyJwt(JWTBearerClientAssertion):  # type: ignore[misc]  # Authlib has no types
    """Authenticates a client by its assertion. One object serves one request."""

    CLIENT_AUTH_METHOD = PRIVATE_KEY

    def __init__(self, settings: Settings, state: State, endpoint: str) -> None:
        super().__init__(endpoint)
        self._settings = settings
        self._state = state
        # An assertion for one endpoint is valid at the others: they are one service.
        self._audiences = {
            settings.issuer,
            *(f"{settings.issuer}/oauth/{name}" for name in ("token", "revoke", "introspect")),
        }

    def process_assertion_claims(
        self, assertion: str, resolve_key: Callable[[dict[str, Any], dict[str, Any]], Client]
    ) -> dict[str, Any]:
        """Verify the assertion and set its client as the request's client. Raises InvalidClientError."""
        try:
            token = jose.parse(assertion)
            # Authlib looks the client up by the subject without checking that there is one.
            subject = token.claims.get("sub")
            client = resolve_key(token.header, {"sub": subject if isinstance(subject, str) else ""})
            self._check(token, client)
        except jose.BadTokenError as problem:
            raise InvalidClientError(description=f"assertion: {problem}") from None
        return token.claims

    def resolve_client_public_key(self, client: Any, headers: dict[str, Any]) -> Client:  # noqa: ANN401, ARG002
        """Return the client itself: its key is chosen by kid when the signature is verified."""
        chosen: Client = client.client
        return chosen

    def _check(self, token: jose.Unverified, client: Client) -> None:
        kind = token.header.get("typ", "")
        if not isinstance(kind, str) or kind.lower() not in TYPES:
            raise jose.BadTokenError("not the type of an assertion")
        jose.verify(token, client.keys, ALGORITHMS)
        claims, now = token.claims, time.time()
        if claims.get("iss") != client.id or claims.get("sub") != client.id:
            raise jose.BadTokenError("issuer and subject must be the client")
        audience = claims.get("aud")
        # One audience only: another service in the audience could replay the assertion here.
        audiences = audience if isinstance(audience, list) else [audience]
        if len(audiences) != 1 or not isinstance(audiences[0], str) or audiences[0] not in self._audiences:
            raise jose.BadTokenError("wrong audience")
        expires_at = _time(claims, "exp")
        if expires_at <= now:
            raise jose.BadTokenError("expired")
        if expires_at > now + self._settings.assertion_seconds + SKEW_SECONDS:
            raise jose.BadTokenError("lives too long")
        for name in ("iat", "nbf"):
            if name in claims and _time(claims, name) > now + SKEW_SECONDS:
                raise jose.BadTokenError("from the future")
        jti = claims.get("jti")
        if not isinstance(jti, str) or not 0 < len(jti) <= LONGEST_JTI:
            raise jose.BadTokenError("no jti")
        if not self._state.use_once(client.id, jti, int(expires_at) + 1):
            raise jose.BadTokenError("used before")


def _time(claims: dict[str, Any], name: str) -> float:
    value: Any = claims.get(name)
    if type(value) not in {int, float} or not 0 <= value < 2**40:
        raise jose.BadTokenError(f"{name} is not a time")
    return float(value)
