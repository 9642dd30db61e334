"""A deployed stack as a target: its exports tell where it is and give the canary's credentials."""

import json
import ssl
from typing import Any

import httpx

from dify_kit.benchmark.targets import Target
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import KitError
from dify_kit.workspace.files import StackFiles
from infra import hints

WAYS = ("api-key", "oauth", "proxy")
TOKEN_SECONDS = 10


def exports(stack: str, ca: str = "") -> dict[str, Any]:
    """Return the exports of a stack, secrets too; ``ca`` (PEM) is trusted as well. KitError: it is not deployed."""
    printed = Pulumi(files=StackFiles.open(stack)).run("stack", "output", "--json", "--show-secrets").stdout
    outputs: dict[str, Any] = json.loads(printed)
    if not outputs.get("serviceApiUrl"):
        raise KitError(f"stack {stack} is not deployed", f"`{hints.kit('up', stack=stack)}`, or give --url")
    if ca:
        tls = outputs.get("tls") or {}
        outputs["tls"] = {**tls, "ca": f"{tls.get('ca') or ''}\n{ca}"}
    return outputs


def by_canary(stack: str, outputs: dict[str, Any], via: str, *, streaming: bool) -> Target:
    """Return the stack's canary app, by its API key or by a token of its OAuth client."""
    if not outputs.get("canary") or not outputs.get("canaryKey"):
        raise KitError(f"stack {stack} has no canary app", "deploy it with dify:canary, or give --url")
    ca = _ca(outputs)
    key = _token(stack, outputs, ca) if via == "oauth" else outputs["canaryKey"]
    return Target(name=via, url=outputs["serviceApiUrl"], kind="dify", key=key, ca=ca, streaming=streaming)


def by_proxy(stack: str, outputs: dict[str, Any], key: str, model: str, *, streaming: bool) -> Target:
    """Return the stack's LLM proxy. Raises KitError when it has none, or when it does not serve the model."""
    llm = outputs.get("llm")
    if not llm:
        raise KitError(f"stack {stack} has no LLM proxy", "deploy it with dify:llm, or give --url")
    if model not in llm["models"]:
        raise KitError(f"--model {model}: not served", hints.nearest(model, llm["models"]))
    return Target(
        name="proxy",
        url=llm["url"],
        kind="openai",
        key=key,
        model=model,
        ca=_ca(outputs),
        streaming=streaming,
    )


def _ca(outputs: dict[str, Any]) -> str:
    return str((outputs.get("tls") or {}).get("ca") or "")


def _token(stack: str, outputs: dict[str, Any], ca: str) -> str:
    """Ask the token endpoint as the canary's client. No answer's text is shown: it may hold a token."""
    client = outputs.get("oauthCanary")
    if not outputs.get("oauth") or not client:
        raise KitError(f"stack {stack} has no OAuth canary", "deploy it with dify:oauth and dify:canary")
    verify = ssl.create_default_context()
    if ca:
        verify.load_verify_locations(cadata=ca)
    form = {
        "grant_type": "client_credentials",
        "client_id": client["clientId"],
        "client_secret": client["clientSecret"],
    }
    try:
        url = outputs["oauth"]["tokenUrl"]
        answer = httpx.post(url, data=form, verify=verify, timeout=TOKEN_SECONDS, trust_env=False)
        answer.raise_for_status()
        return str(answer.json()["access_token"])
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise KitError(
            "the token endpoint gave no token", "the command `bench` asks as oauthCanary"
        ) from error
