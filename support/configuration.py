"""A complete, valid configuration, and what a test changes in it."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pulumi

from infra.settings.program import load
from infra.settings.secrets import SHAPES
from infra.settings.stack import Settings

SECRETS = {key: shape.generate() for key, shape in SHAPES.items() if shape.generate}
PLAIN: Mapping[str, Any] = {
    "images": "local",
    "vectorStore": "pgvector",
    "adminEmail": "admin@example.com",
}


def configure(plain: Mapping[str, Any] | None = None, secrets: Mapping[str, str] | None = None) -> None:
    """Give Pulumi the configuration of a stack. None removes a key."""
    values = {**PLAIN, **(plain or {})}
    hidden = {**SECRETS, **(secrets or {})}
    texts = {
        f"dify:{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in {**values, **hidden}.items()
        if value is not None
    }
    pulumi.runtime.set_all_config(texts, [f"dify:{key}" for key in hidden])


def settings(plain: Mapping[str, Any] | None = None, secrets: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of a valid configuration with some values changed."""
    configure(plain, secrets)
    return load(pulumi.Config("dify"), "unit")


def resolved(values: Mapping[str, Any]) -> dict[str, str]:
    """Return a mapping with every Output in it replaced by its value."""

    async def wait() -> dict[str, str]:
        return {
            key: str(await value.future() if isinstance(value, pulumi.Output) else value)
            for key, value in values.items()
        }

    return asyncio.get_event_loop().run_until_complete(wait())
