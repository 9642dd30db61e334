"""Parsing and verifying a JWS in compact form, for every kind of token that this service accepts.

joserfc verifies signatures. What it, or a later version of it, might accept is refused here first: other
encodings of the same token, repeated members, critical headers, keys and algorithms that are not
configured. Only `kid` of a token's header selects a key, and no URL of a header is ever fetched.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry, deserialize_compact

LONGEST_TOKEN = 8_192
COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
# The accepted algorithms use public keys only: `none` and the HMAC family are excluded.
KEY_TYPES: Final = {
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "RS256": ("RSA", None),
    "RS384": ("RSA", None),
    "RS512": ("RSA", None),
    "PS256": ("RSA", None),
    "PS384": ("RSA", None),
    "PS512": ("RSA", None),
}
SMALLEST_RSA_BITS = 2048
# Members that change what the signature covers, or how the rest is interpreted.
DEMANDING = ("crit", "b64", "zip", "enc")
MOST_BRACKETS = 500
# The most keys with one kid that are tried; a set with more of them is malformed.
MOST_CANDIDATES = 4

# Irrelevant members (x5t and the like) are ignored.
REGISTRIES: Final = {name: JWSRegistry(algorithms=[name], strict_check_header=False) for name in KEY_TYPES}

PublicKey = ECKey | RSAKey


class BadTokenError(Exception):
    """A token is refused. The message is a fixed phrase for the log and contains nothing of the token."""


class UnknownKeyError(BadTokenError):
    """No key has the token's kid: the key set may have changed since it was read."""


@dataclass(frozen=True, kw_only=True)
class Unverified:
    """A parsed token: well-formed, not verified."""

    text: str
    header: dict[str, Any]
    claims: dict[str, Any]
    signature: bytes


@dataclass(frozen=True, kw_only=True)
class VerificationKey:
    """A public key, and the algorithms it may verify (none when it is for another use)."""

    kid: str | None
    jwk: PublicKey
    algorithms: frozenset[str]


def parse(text: str, longest: int = LONGEST_TOKEN) -> Unverified:
    """Parse a compact JWS. Raises BadTokenError for anything else."""
    if len(text) > longest:
        raise BadTokenError("too long")
    if not COMPACT.fullmatch(text):
        raise BadTokenError("not a compact JWS")
    header, claims, signature = (_decode(part) for part in text.split("."))
    return Unverified(text=text, header=json_object(header), claims=json_object(claims), signature=signature)


def verify(token: Unverified, keys: Sequence[VerificationKey], algorithms: Iterable[str]) -> None:
    """Verify the signature with the key that `kid` names. Raises BadTokenError or its UnknownKeyError."""
    algorithm = token.header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in KEY_TYPES or algorithm not in algorithms:
        raise BadTokenError("algorithm not allowed")
    if any(name in token.header for name in DEMANDING):
        raise BadTokenError("critical header")
    for key in _candidates(token.header, algorithm, keys):
        if _signed_by(token.text, key.jwk, algorithm):
            return
    raise BadTokenError("wrong signature")


def verification_key(jwk: PublicKey) -> VerificationKey:
    """Return the key with the algorithms it may verify: by type, curve, size, `use`, `key_ops` and `alg`."""
    members = jwk.as_dict(private=False)
    fitting = frozenset(name for name, kind in KEY_TYPES.items() if _fits(jwk, kind))
    if members.get("use", "sig") != "sig" or "verify" not in members.get("key_ops", ["verify"]):
        fitting = frozenset()
    if "alg" in members:
        fitting &= {members["alg"]}
    kid = members.get("kid")
    return VerificationKey(kid=kid if isinstance(kid, str) else None, jwk=jwk, algorithms=fitting)


def _fits(jwk: PublicKey, kind: tuple[str, str | None]) -> bool:
    if isinstance(jwk, ECKey):
        return kind == ("EC", jwk.curve_name)
    return kind[0] == "RSA" and jwk.public_key.key_size >= SMALLEST_RSA_BITS


def _candidates(
    header: dict[str, Any], algorithm: str, keys: Sequence[VerificationKey]
) -> list[VerificationKey]:
    kid = header.get("kid")
    if kid is None:
        fitting = [key for key in keys if algorithm in key.algorithms]
        # Without a kid there must be exactly one candidate.
        if len(fitting) != 1:
            raise BadTokenError("no kid")
        return fitting
    if not isinstance(kid, str):
        raise BadTokenError("kid is not a text")
    named = [key for key in keys if key.kid == kid]
    if not named:
        raise UnknownKeyError("unknown kid")
    return [key for key in named if algorithm in key.algorithms][:MOST_CANDIDATES]


def _signed_by(text: str, jwk: PublicKey, algorithm: str) -> bool:
    try:
        deserialize_compact(text, jwk, registry=REGISTRIES[algorithm])
    except (JoseError, ValueError, TypeError):
        return False
    return True


def _decode(part: str) -> bytes:
    try:
        data = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise BadTokenError("not base64url") from None
    # Several texts decode to the same bytes; only the canonical encoding is accepted.
    if base64.urlsafe_b64encode(data).rstrip(b"=") != part.encode():
        raise BadTokenError("not canonical base64url")
    return data


def json_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in bytes; repeated members and NaN are refused. Raises BadTokenError."""
    # The parser's depth limit differs between versions of Python, and deep nesting has no use here.
    if data.count(b"[") + data.count(b"{") > MOST_BRACKETS:
        raise BadTokenError("nested too deeply")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise BadTokenError("not JSON") from None
    if not isinstance(value, dict):
        raise BadTokenError("not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise BadTokenError("repeated member")
    return members


def _no_constant(_name: str) -> NoReturn:
    raise BadTokenError("not JSON")
