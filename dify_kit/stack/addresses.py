"""What a deployed stack offers: its addresses, where its keys are, and a first request that works."""

import shlex
from collections.abc import Mapping
from typing import Any

from infra import hints

MESSAGE = (
    '{"inputs": {}, "query": "hello", "user": "me", "response_mode": "blocking", "auto_generate_name": false}'
)
# The example app that answers with a model: a first request shows more by it than by the canary.
WITH_MODEL = "llm-chat"


def rows(outputs: Mapping[str, Any], stack: str, *, issued: bool = False) -> list[tuple[str, str]]:
    """Return label and text of everything that the stack has: addresses, then commands that print keys.

    `issued` is whether a caller of the LLM proxy has a key already.
    """
    oauth, llm = outputs.get("oauth") or {}, outputs.get("llm") or {}
    first = bool(llm) and not issued
    found = [
        ("console", outputs.get("consoleUrl") or outputs.get("publicUrl")),
        ("service API", outputs.get("serviceApiUrl")),
        ("OAuth", oauth.get("tokenUrl")),
        ("LLM proxy", llm.get("url")),
        ("sign in as", outputs.get("adminEmail")),
        ("password", hints.kit("password", stack=stack)),
        ("first key", key_command(outputs, stack)),
        ("LLM key", hints.kit("keys", "issue", "me", stack=stack) if first else ""),
        ("", "the next `up` puts the key into effect" if first else ""),
    ]
    return [(label, str(text)) for label, text in found if text]


def key_command(outputs: Mapping[str, Any], stack: str) -> str:
    """Return the command that prints an app's API key: that of the example with a model, else the canary's, else any.

    Empty without apps.
    """
    apps = sorted(outputs.get("apps") or {})
    if outputs.get("canary") and WITH_MODEL not in apps:
        return hints.kit("output", "canaryKey", "--show-secrets", stack=stack)
    app = WITH_MODEL if WITH_MODEL in apps else next(iter(apps), "")
    return hints.kit("output", f"appKeys.{app}", "--show-secrets", stack=stack) if app else ""


def first_request(outputs: Mapping[str, Any], stack: str) -> str:
    """Return a command for bash that sends a request to the service API and shows the answer; empty without apps.

    The key goes to curl by a pipe: every user of the machine can see arguments.
    """
    key, api = key_command(outputs, stack), outputs.get("serviceApiUrl")
    if not key or not api:
        return ""
    header = f'printf \'header = "Authorization: Bearer %s"\' "$({key})"'
    ca = (
        f" --cacert <({hints.kit('output', 'tls.ca', stack=stack)})"
        if (outputs.get("tls") or {}).get("ca")
        else ""
    )
    curl = f"curl --silent --show-error --config -{ca}"
    if outputs.get("canary") or WITH_MODEL in (outputs.get("apps") or {}):
        message = f"--header 'Content-Type: application/json' --data {shlex.quote(MESSAGE)}"
        return f"{header} | {curl} {shlex.quote(f'{api}/chat-messages')} {message}"
    return f"{header} | {curl} {shlex.quote(f'{api}/info')}"
