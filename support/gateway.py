"""The configuration of a small gateway: an issuer, two tenants, their clients and keys."""

import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from dify_gateway import client_secrets
from support.tokens import private_jwk, public_jwk

SEAL_KEY = "0123456789abcdef0123456789abcdef"
ISSUER = "https://dify.example.com"
AUDIENCE = "https://dify.example.com/v1"
KID = "first"
ACME_KEY, GLOBEX_KEY = "app-acme0123456789", "app-globex0123456789"
SECRET = client_secrets.generate_secret()
OTHER_SECRET = client_secrets.generate_secret()
SIGNING_KEY = ec.generate_private_key(ec.SECP256R1())
CLIENT_KEY = ec.generate_private_key(ec.SECP256R1())


def documents() -> dict[str, dict[str, Any]]:
    """Return the four files of a small installation, by name: fresh copies that a test may change."""
    hashed = client_secrets.hash_secret(SECRET)
    now = int(time.time())
    return {
        "config.json": {
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "redis": {"url": "redis://:redis-password@redis:6379/5", "seal_key": SEAL_KEY},
            "limits": {"failures_per_client": 5, "failures_per_address": 20, "window_seconds": 60},
        },
        "tenants.json": {
            "tenants": {
                "acme": {"app_key": ACME_KEY, "limits": "small"},
                "globex": {"app_key": GLOBEX_KEY},
            }
        },
        "clients.json": {
            "clients": {
                "acme-app": {"tenant": "acme", "scopes": ["chat", "files"], "secrets": [hashed]},
                "globex-app": {
                    "tenant": "globex",
                    "scopes": ["chat"],
                    "secrets": [client_secrets.hash_secret(OTHER_SECRET)],
                    "token_seconds": 120,
                },
                "disabled": {"tenant": "acme", "scopes": ["chat"], "secrets": [hashed], "disabled": True},
                "renewed": {
                    "tenant": "acme",
                    "scopes": ["chat"],
                    "secrets": [hashed],
                    "not_before": now + 3600,
                },
                "basic-only": {
                    "tenant": "acme",
                    "scopes": ["chat"],
                    "secrets": [hashed],
                    "auth_method": "client_secret_basic",
                },
                "signer": {
                    "tenant": "acme",
                    "scopes": ["chat", "llm"],
                    "auth_method": "private_key_jwt",
                    "jwks": {"keys": [public_jwk(CLIENT_KEY, "client-key")]},
                },
            }
        },
        "keys.json": {
            "keys": [private_jwk(SIGNING_KEY, KID, created_at=now - 60, use_from=now - 60)],
        },
    }
