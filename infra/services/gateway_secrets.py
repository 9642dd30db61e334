"""What the OAuth gateway's own secret, `dify:gatewaySecret`, is used for: one derived value for each purpose.

Only the gateway gets the secret itself and the key that seals; its Redis gets its password and nothing else.
"""

import hashlib
import hmac

REDIS_PASSWORD = b"dify-kit: password of the gateway's Redis"
SEAL = b"dify-kit: seal of what the gateway keeps"


def redis_password(secret: str) -> str:
    """Return the password of the gateway's Redis, in hexadecimal digits."""
    return _derived(secret, REDIS_PASSWORD)


def seal_key(secret: str) -> str:
    """Return the key that authenticates what the gateway wrote, in hexadecimal digits."""
    return _derived(secret, SEAL)


def _derived(secret: str, purpose: bytes) -> str:
    return hmac.new(secret.encode(), purpose, hashlib.sha256).hexdigest()
