"""Signing keys: the document keys.json and its rotation. Imports nothing of the service, so the kit uses it too.

The document is `{"keys": [...]}`, a list of JWKs (EC, P-256). Beside the JWK's own members each has `created_at`
and `use_from`, and after its replacement `retired_at` (all seconds of the epoch). The private part `d` is kept only
while a key may still sign; a retired key verifies until the last token it signed has expired.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from joserfc.errors import JoseError
from joserfc.jwk import ECKey

ALGORITHM = "ES256"
CURVE = "P-256"
# The longest configurable lifetime of a client's tokens (config.py refuses more), and thus the overlap.
LONGEST_TOKEN_SECONDS = 86_400
PUBLIC_MEMBERS = ("kty", "crv", "x", "y", "kid", "use", "alg")
MEMBERS = {*PUBLIC_MEMBERS, "d", "created_at", "use_from", "retired_at"}

KeyDocument = dict[str, Any]


class KeyDocumentError(ValueError):
    """keys.json is invalid. The message names the entry, the member and the fix, never a key's value."""


@dataclass(frozen=True, kw_only=True)
class SigningKey:
    """A key of the document. `secret` is true when it can sign; times are seconds of the epoch."""

    kid: str
    jwk: ECKey
    secret: bool
    use_from: int
    retired_at: int | None


def generate_key(now: int, *, lead_seconds: int = 0) -> dict[str, Any]:
    """Return a new private JWK that signs from `now + lead_seconds` on. Its kid is its RFC 7638 thumbprint."""
    key = ECKey.generate_key(CURVE, parameters={"use": "sig", "alg": ALGORITHM}, auto_kid=True)
    return {**key.as_dict(private=True), "created_at": now, "use_from": now + lead_seconds}


def new_document(now: int | None = None) -> KeyDocument:
    """Return the document of a new installation: one key that signs immediately."""
    return {"keys": [generate_key(int(time.time()) if now is None else now)]}


def rotate(
    document: Mapping[str, Any],
    now: int | None = None,
    *,
    lead_seconds: int = 0,
    overlap_seconds: int = LONGEST_TOKEN_SECONDS,
) -> KeyDocument:
    """Return a document with a new signing key in front; the given document is not changed.

    Earlier signing keys lose their private part, unless the new key starts later: until then the newest
    of them signs. A retired key is removed `overlap_seconds` after its successor started to sign.
    """
    moment = int(time.time()) if now is None else now
    read_document(document)
    new = generate_key(moment, lead_seconds=lead_seconds)
    kept = []
    for old in document["keys"]:
        retired_at = old.get("retired_at") or new["use_from"]
        if retired_at + overlap_seconds <= moment:
            continue
        still_signs = retired_at > moment
        kept.append(
            {
                **{name: value for name, value in old.items() if name != "d" or still_signs},
                "retired_at": retired_at,
            }
        )
    return {"keys": [new, *kept]}


def read_document(document: object) -> tuple[SigningKey, ...]:
    """Validate a document and return its keys, in its order. Raises KeyDocumentError."""
    if (
        not isinstance(document, Mapping)
        or set(document) != {"keys"}
        or not isinstance(document["keys"], list)
    ):
        raise KeyDocumentError('must be {"keys": [...]}, as `dify-kit keys rotate signing` writes it')
    keys = tuple(_read_key(f"keys[{number}]", entry) for number, entry in enumerate(document["keys"]))
    if len({key.kid for key in keys}) != len(keys):
        raise KeyDocumentError("two keys have the same kid: remove one of them")
    if not any(key.secret and key.retired_at is None for key in keys):
        raise KeyDocumentError(
            "no key can sign: exactly the newest needs its private part `d` and no `retired_at`"
        )
    return keys


def signing_key(keys: Sequence[SigningKey], now: float) -> SigningKey:
    """Return the key that signs at a time: the newest whose `use_from` has passed, or else the earliest."""
    able = [key for key in keys if key.secret]
    begun = [key for key in able if key.use_from <= now]
    return max(begun, key=lambda key: key.use_from) if begun else min(able, key=lambda key: key.use_from)


def public_set(keys: Sequence[SigningKey]) -> dict[str, Any]:
    """Return the public JWK set: public members only, keys that do not sign yet included."""
    return {"keys": [_public(key.jwk.as_dict(private=False)) for key in keys]}


def _public(jwk: Mapping[str, Any]) -> dict[str, Any]:
    return {name: jwk[name] for name in PUBLIC_MEMBERS if name in jwk}


def _read_key(where: str, entry: object) -> SigningKey:
    if not isinstance(entry, Mapping):
        raise KeyDocumentError(f"{where} must be a JWK object")
    unknown = sorted(set(entry) - MEMBERS)
    if unknown:
        raise KeyDocumentError(f"{where} has unknown members {', '.join(unknown)}: remove them")
    for name, value in {"kty": "EC", "crv": CURVE, "use": "sig", "alg": ALGORITHM}.items():
        if entry.get(name) != value:
            raise KeyDocumentError(
                f"{where}.{name} must be {value}: this service signs with {ALGORITHM} only"
            )
    if not isinstance(entry.get("kid"), str) or not entry["kid"]:
        raise KeyDocumentError(f"{where}.kid must be a text")
    times = {name: entry.get(name) for name in ("created_at", "use_from", "retired_at")}
    for name, moment in times.items():
        if type(moment) is not int and (name != "retired_at" or moment is not None):
            raise KeyDocumentError(f"{where}.{name} must be a whole number of seconds since 1970")
    material = {name: entry[name] for name in (*PUBLIC_MEMBERS, "d") if name in entry}
    try:
        # Not every version of the libraries below compares the private number with the public point.
        jwk = ECKey.import_key(cast("Any", material))
        consistent = "d" not in entry or _signs_for(jwk, ECKey.import_key(cast("Any", _public(material))))
    except (JoseError, ValueError, KeyError, TypeError):
        raise KeyDocumentError(f"{where} is not a usable {CURVE} key: generate a new one") from None
    if not consistent:
        raise KeyDocumentError(f"{where}: `d` does not match `x` and `y`: generate a new key")
    return SigningKey(
        kid=entry["kid"],
        jwk=jwk,
        secret="d" in entry,
        use_from=int(times["use_from"] or 0),
        retired_at=times["retired_at"],
    )


def _signs_for(private: ECKey, public: ECKey) -> bool:
    if private.private_key is None:
        return False
    derived = private.private_key.public_key().public_numbers()
    return derived == public.public_key.public_numbers()
