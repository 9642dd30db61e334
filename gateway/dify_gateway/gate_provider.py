"""The provider of the gate: its endpoints and keys, and verification of its ID tokens.

Authlib's client runs the redirects; what it receives is verified here, with the same strict parser as every
other token of this service.
"""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dify_gateway import jose
from dify_gateway.config import EXTERNAL_ALGORITHMS, Issuer
from dify_gateway.gate_config import GateSettings
from dify_gateway.issuers import Fetch, IssuerKeys, at, endpoint, fetch_json
from dify_gateway.state import UnavailableError

# Lists of groups can make ID tokens long.
LONGEST_ID_TOKEN = 32_768
MOST_TEXT = 255
TYPES: Final = frozenset({"jwt", ""})
HASHES: Final = {"256": hashlib.sha256, "384": hashlib.sha384, "512": hashlib.sha512}
PLAIN: Final = re.compile(r"[A-Za-z0-9._~-]+", re.ASCII)
BASIC, POST = "client_secret_basic", "client_secret_post"
REFRESH_SECONDS, REFETCH_SECONDS = 300, 10


class RefusedError(Exception):
    """The signed-in user is not admitted. The message is a fixed phrase."""


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The provider's metadata. `end_session` and `userinfo` are empty when it has no such endpoint."""

    authorization: str
    token: str
    userinfo: str
    end_session: str
    auth_method: str


@dataclass(frozen=True, kw_only=True)
class Person:
    """The user who signed in."""

    subject: str
    email: str


class Provider(IssuerKeys):
    """The provider's documents, cached and renewed like those of external issuers."""

    def __init__(self, settings: GateSettings, directory: Path, fetch: Fetch | None = None) -> None:
        issuer = Issuer(
            issuer=settings.issuer,
            audience=settings.client_id,
            jwks_uri="",
            tenant="",
            tenant_claim=(),
            tenants=(),
            scope_claim=(),
            subject_claim="sub",
            algorithms=EXTERNAL_ALGORITHMS,
            skew_seconds=settings.skew_seconds,
            refresh_seconds=REFRESH_SECONDS,
            refetch_seconds=REFETCH_SECONDS,
            ca_file=settings.ca_file,
        )
        ca_file = str(directory / settings.ca_file) if settings.ca_file else ""
        super().__init__(issuer, fetch or fetch_json, ca_file)
        self._metadata: Metadata | None = None
        # Clients and servers encode other characters of a Basic header in different ways.
        self._plain = all(PLAIN.fullmatch(one) for one in (settings.client_id, settings.client_secret))

    def metadata(self) -> Metadata:
        """Return the provider's endpoints. Raises UnavailableError until they have been read."""
        if self._metadata is None:
            self._renew()
        if self._metadata is None:
            raise UnavailableError(f"the endpoints of the provider {self.issuer.issuer} could not be read")
        return self._metadata

    def read(self) -> Metadata:
        """Read endpoints and keys now, also when they were read before. Raises IssuerError."""
        self._read()
        return self.metadata()

    def problem(self) -> str:
        """Return what is wrong, for /healthz; empty when nothing is."""
        return f"gate: {keys_problem}" if (keys_problem := super().problem()) else ""

    def id_claims(self, text: object, nonce: object, access_token: object) -> dict[str, Any]:
        """Return the claims of an ID token that was issued for this client and this sign-in.

        OpenID Connect Core, section 3.1.3.7. Raises BadTokenError, or UnavailableError while there are no keys.
        """
        if not isinstance(text, str):
            raise jose.BadTokenError("no ID token")
        token = jose.parse(text, LONGEST_ID_TOKEN)
        kind = token.header.get("typ", "")
        if not isinstance(kind, str) or kind.lower() not in TYPES:
            raise jose.BadTokenError("not the type of an ID token")
        self.verify(token)
        claims = token.claims
        self._check_parties(claims)
        self._check_times(claims)
        given = claims.get("nonce")
        if not isinstance(nonce, str) or not nonce or not isinstance(given, str):
            raise jose.BadTokenError("no nonce")
        if not hmac.compare_digest(given.encode(), nonce.encode()):
            raise jose.BadTokenError("wrong nonce")
        _check_access_token(token, access_token)
        return claims

    def _discover(self) -> str:
        document = self._document()
        methods = document.get("token_endpoint_auth_methods_supported", [BASIC])
        optional = {name: document.get(name, "") for name in ("userinfo_endpoint", "end_session_endpoint")}
        for name, value in optional.items():
            if value:
                optional[name] = endpoint(self.issuer, document, name)
        metadata = Metadata(
            authorization=endpoint(self.issuer, document, "authorization_endpoint"),
            token=endpoint(self.issuer, document, "token_endpoint"),
            userinfo=optional["userinfo_endpoint"],
            end_session=optional["end_session_endpoint"],
            auth_method=POST
            if isinstance(methods, list) and POST in methods and (BASIC not in methods or not self._plain)
            else BASIC,
        )
        uri = endpoint(self.issuer, document, "jwks_uri")
        self._metadata = metadata
        return uri

    def _check_parties(self, claims: Mapping[str, Any]) -> None:
        client = self.issuer.audience
        if claims.get("iss") != self.issuer.issuer:
            raise jose.BadTokenError("wrong issuer")
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if client not in audiences:
            raise jose.BadTokenError("wrong audience")
        # A token for several audiences must name this client as the authorized party.
        party = claims.get("azp", client if len(audiences) == 1 else None)
        if party != client:
            raise jose.BadTokenError("wrong authorized party")
        # Keycloak has the purpose of a token in this claim.
        if claims.get("typ", "ID") != "ID":
            raise jose.BadTokenError("not an ID token")

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now, skew = time.time(), self.issuer.skew_seconds
        times = {name: claims.get(name, 0 if name == "nbf" else None) for name in ("exp", "iat", "nbf")}
        for name, value in times.items():
            if type(value) not in {int, float} or not 0 <= value < 2**40:
                raise jose.BadTokenError(f"claim {name} is not a time")
        if times["exp"] + skew <= now:
            raise jose.BadTokenError("expired")
        if max(times["iat"], times["nbf"]) > now + skew:
            raise jose.BadTokenError("from the future")


def admitted(settings: GateSettings, claims: Mapping[str, Any]) -> Person:
    """Return the user if the settings' rules admit them. Raises RefusedError otherwise."""
    subject = _text(claims.get("sub"))
    if not subject or not subject.isascii():
        raise RefusedError("the ID token has no usable subject")
    email = _text(claims.get("email"))
    if settings.email_domains:
        if not email:
            raise RefusedError("the provider returned no e-mail address")
        # Some providers omit the claim; an explicit false is respected.
        if claims.get("email_verified", True) not in (True, "true"):
            raise RefusedError("the e-mail address is not verified")
        # With two @, mail programs disagree on where the domain begins.
        name, _, domain = email.partition("@")
        if not name or domain.lower() not in settings.email_domains:
            raise RefusedError("the e-mail address is of another domain")
    if settings.allowed_groups and not _groups(settings, claims) & set(settings.allowed_groups):
        raise RefusedError("in no admitted group")
    return Person(subject=subject, email=email)


def lacks(settings: GateSettings, claims: Mapping[str, Any]) -> bool:
    """Return whether claims that the rules need are missing; the userinfo endpoint may have them."""
    no_email = bool(settings.email_domains) and "email" not in claims
    return no_email or (bool(settings.allowed_groups) and at(claims, settings.groups_claim) is None)


def _groups(settings: GateSettings, claims: Mapping[str, Any]) -> set[str]:
    value = at(claims, settings.groups_claim)
    listed = value if isinstance(value, list) else [value]
    return {one for one in listed if isinstance(one, str)}


def _text(value: object) -> str:
    usable = isinstance(value, str) and 0 < len(value) <= MOST_TEXT and value.isprintable()
    return value if isinstance(value, str) and usable and value == value.strip() else ""


def _check_access_token(token: jose.Unverified, access_token: object) -> None:
    """Compare `at_hash`, when there is one, with the access token of the same answer. Raises BadTokenError."""
    expected = token.claims.get("at_hash")
    if expected is None:
        return
    digest = HASHES[str(token.header["alg"])[2:]](str(access_token).encode()).digest()
    half = base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=")
    if not isinstance(expected, str) or not hmac.compare_digest(expected.encode(), half):
        raise jose.BadTokenError("at_hash is of another access token")
