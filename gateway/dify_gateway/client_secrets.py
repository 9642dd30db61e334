"""Client secrets: generation, hashes and comparison. Imports nothing of the service, so the kit uses it too.

A secret is 256 generated random bits, never a chosen word, and `hash_secret` accepts no other. Guessing 256 bits is
infeasible whatever a single guess costs. A slow password hash (argon2, scrypt) would add no security,
but would let wrong secrets occupy the token endpoint at 50 ms of CPU each. So the hash is one
salted SHA-256, a few microseconds, under a name that a later format can replace.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets

# Secret scanners and readers recognise the prefix in a log or a commit.
PREFIX = "dks_"
SECRET_BYTES = 32
SECRET = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}", re.ASCII)
FORMAT = "sha256-v1"
SALT_BYTES = 16
DIGEST_BYTES = 32
# Longer input is refused before it is hashed.
LONGEST_SECRET = 256


class SecretError(ValueError):
    """A secret or a hash has not the format of this module. The message never contains the value."""


def generate_secret() -> str:
    """Return a new client secret: `dks_` and 43 characters of base64url."""
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def hash_secret(secret: str) -> str:
    """Return the hash of a secret for clients.json: format, salt and digest, separated by `$`. Raises SecretError."""
    if not SECRET.fullmatch(secret):
        raise SecretError(
            f"a client secret is {PREFIX} followed by 43 random characters; generate it instead of choosing it"
        )
    salt = secrets.token_bytes(SALT_BYTES)
    return "$".join((FORMAT, _text(salt), _text(_digest(salt, secret))))


def parse_hash(stored: str) -> tuple[bytes, bytes]:
    """Return salt and digest (bytes) of a hash. Raises SecretError."""
    parts = stored.split("$")
    if len(parts) != 3 or parts[0] != FORMAT:  # noqa: PLR2004  # format, salt, digest
        raise SecretError(f"not a hash of the format {FORMAT}$salt$digest")
    try:
        salt, digest = _bytes(parts[1]), _bytes(parts[2])
    except (ValueError, binascii.Error):
        raise SecretError(f"salt and digest of a {FORMAT} hash are base64url") from None
    if (len(salt), len(digest)) != (SALT_BYTES, DIGEST_BYTES):
        raise SecretError(f"a {FORMAT} hash has a salt of {SALT_BYTES} bytes and a digest of {DIGEST_BYTES}")
    return salt, digest


def matches(secret: str, hashes: tuple[tuple[bytes, bytes], ...]) -> bool:
    """Return whether a secret matches one of the (salt, digest) pairs, in a time independent of which one.

    Without any pair, as for an unknown client, the same work is done and the result discarded.
    """
    tried = secret if len(secret) <= LONGEST_SECRET else ""
    found = False
    for salt, digest in hashes or (NOBODY,):
        found |= hmac.compare_digest(_digest(salt, tried), digest)
    return found and bool(hashes)


def _digest(salt: bytes, secret: str) -> bytes:
    return hashlib.sha256(salt + secret.encode(errors="surrogatepass")).digest()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)


NOBODY = (secrets.token_bytes(SALT_BYTES), secrets.token_bytes(DIGEST_BYTES))
