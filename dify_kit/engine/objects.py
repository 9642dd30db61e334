"""Sections that are stored as text, as `pulumi config set llm '{...}'` does: Pulumi changes no part of a text."""

import json
from collections.abc import Mapping
from typing import Any

from dify_kit.workspace.files import PROJECT
from infra.catalogue.project import declared

# By the type of the default in Pulumi.yaml.
_TYPES: Mapping[str, type] = {"object": dict, "array": list}


def stored_as_text(config: Mapping[str, object]) -> dict[str, Any]:
    """Return the settings of a stack's file that are JSON text and have to be objects or lists, parsed."""
    found: dict[str, Any] = {}
    for key, entry in declared().items():
        wanted = _TYPES.get(str(entry.get("type")))
        text = config.get(f"{PROJECT}:{key}")
        if wanted is None or not isinstance(text, str):
            continue
        try:
            value = json.loads(text)
        except ValueError:
            continue  # the checks of the settings report it
        if isinstance(value, wanted):
            found[f"{PROJECT}:{key}"] = value
    return found


def document(values: Mapping[str, Any]) -> str:
    """Return the JSON by which `pulumi config set-all` stores them as objects."""
    return json.dumps({key: entry(value) for key, value in values.items()})


def entry(value: object, *, secret: bool = False) -> dict[str, Any]:
    """Return how `pulumi config set-all` is given one value. Encrypted parts are `{"secure": ...}`, as in the file."""
    if isinstance(value, str):
        return {"value": value, "secret": secret}
    if secret:
        # Pulumi cannot read an object again that it has encrypted as a whole: as text it can.
        return {"value": json.dumps(value), "secret": True}
    return {"value": json.dumps(value), "objectValue": value, "secret": secret}
