"""The files of the gateway's release: OAuth's, the gate's, or those of both."""

import json
from collections.abc import Mapping
from typing import Any

from infra.settings.gate import Gate, gate_document, gate_files
from infra.settings.oauth import OAuth, documents

KEYS_FILE = "keys.json"


def gateway_files(
    oauth: OAuth | None,
    gate: Gate | None,
    *,
    redis_url: str,
    seal_key: str,
    app_keys: Mapping[str, str],
    signing_keys: str,
    client_secret: str,
) -> dict[str, str]:
    """Return all files but clients.json, by name. They hold keys and passwords. Equal settings give equal texts.

    `seal_key` authenticates the entries of the gateway in Redis. `app_keys` maps each tenant to the key of its
    app, `signing_keys` is the document of them (both empty without OAuth), `client_secret` that of the gate's client
    (empty without a gate).
    """
    files: dict[str, str] = {}
    redis = {"url": redis_url, "seal_key": seal_key}
    config: dict[str, Any] = {"redis": redis}
    if oauth:
        files = {**documents(oauth, redis=redis, app_keys=app_keys), KEYS_FILE: signing_keys}
        config = json.loads(files["config.json"])
    if gate:
        config["gate"] = gate_document(gate, client_secret)
        files |= gate_files(gate)
    return {**files, "config.json": json.dumps(config, sort_keys=True)}
