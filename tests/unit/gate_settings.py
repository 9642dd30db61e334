"""A gate as a stack's settings have it, for the tests of what becomes of it."""

from collections.abc import Mapping
from typing import Any

from infra.settings.stack import Settings
from support.configuration import settings

SECRET = {"oidcGateClientSecret": "the-secret-of-the-client"}
GATE: Mapping[str, Any] = {"enabled": True, "issuer": "https://id.example.com/realms/a", "clientId": "dify"}


def gated(plain: Mapping[str, Any] | None = None, **parts: Any) -> Settings:
    """Return the settings of a stack at https with a gate, some parts of it changed."""
    return settings(
        {"publicUrl": "https://dify.example.com", "oidcGate": {**GATE, **parts}, **(plain or {})}, SECRET
    )
