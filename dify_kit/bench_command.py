"""The command that measures a deployed stack, or any base URL."""

import asyncio
import json
import os
import ssl
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx
import typer
from rich.console import Console
from rich.table import Table

from dify_kit.app import DEFAULT_STACK, Stack, app
from dify_kit.benchmark.load import Limits, run
from dify_kit.benchmark.statistics import summary
from dify_kit.benchmark.targets import Target
from dify_kit.errors import KitError, UsageError
from dify_kit.pulumi_cli import Pulumi
from dify_kit.stack_files import StackFiles
from dify_kit.talk import say, warn

TOKEN_SECONDS = 10


@app.command()
def bench(  # noqa: PLR0917  # Typer calls it by name
    stack: Stack = DEFAULT_STACK,
    via: Annotated[str, typer.Option(help="The way into the stack: api-key, oauth or proxy.")] = "api-key",
    url: Annotated[str, typer.Option(help="A base URL in place of the stack, with its /v1.")] = "",
    kind: Annotated[str, typer.Option(help="The API of --url: dify or openai.")] = "dify",
    key_variable: Annotated[
        str, typer.Option(help="The variable with the key of --url, or of the proxy.")
    ] = "BENCH_KEY",
    model: Annotated[str, typer.Option(help="The model to ask, for openai.")] = "gpt-4.1",
    requests: Annotated[int, typer.Option(min=1, help="At most so many requests.")] = 50,
    seconds: Annotated[float, typer.Option(min=0.1, help="At most so long.")] = 30,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 4,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the results to a file.")] = None,
) -> None:
    """Measure latency, time to first token, errors and throughput; bounded by requests and seconds."""
    target = _given(url, kind, key_variable, model) if url else _deployed(stack, via, key_variable, model)
    found = asyncio.run(
        run(
            target,
            Limits(requests=requests, seconds=seconds, concurrency=concurrency),
            lambda count: say(f"{target.name}: {count} of {requests}") if count % 10 == 0 else None,
        )
    )
    result = summary(found.samples, found.seconds) | {"target": target.name, "concurrency": concurrency}
    if found.left:
        warn(f"{found.left} conversations could not be deleted")
    _print(result)
    if as_json:
        try:
            as_json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise KitError(
                f"--json {as_json}: {error.strerror}", "name a file that can be written"
            ) from error
    if not result["ok"]:
        raise KitError("no request succeeded", "the table counts the errors by kind")


def _given(url: str, kind: str, variable: str, model: str) -> Target:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
        raise UsageError("--url: not a base URL", "for example https://host/v1, without a key in it")
    if kind not in {"dify", "openai"}:
        raise UsageError(f"--kind {kind}: not known", "dify or openai")
    key = _key(variable)
    return Target(name=parts.hostname, url=url.rstrip("/"), kind=kind, key=key, model=model)


def _key(variable: str) -> str:
    key = os.environ.get(variable, "")
    if not key or not key.isascii() or not key.isprintable():
        raise UsageError(f"{variable} has no usable key", f"export {variable}=..., or name another variable")
    return key


def _deployed(stack: str, via: str, variable: str, model: str) -> Target:
    if via not in {"api-key", "oauth", "proxy"}:
        raise UsageError(f"--via {via}: not known", "api-key, oauth or proxy")
    exports = Pulumi(files=StackFiles.open(stack)).run("stack", "output", "--json", "--show-secrets").stdout
    outputs: dict[str, Any] = json.loads(exports)
    ca = (outputs.get("tls") or {}).get("ca") or ""
    if via == "proxy":
        url = f"{outputs['publicUrl']}/llm/v1"
        return Target(name=via, url=url, kind="openai", key=_key(variable), model=model, ca=ca)
    if not outputs.get("canary") or not outputs.get("canaryKey"):
        raise KitError(f"stack {stack} has no canary app", "deploy it with dify:canary, or give --url")
    key = outputs["canaryKey"] if via == "api-key" else _token(stack, outputs, ca)
    return Target(name=via, url=outputs["serviceApiUrl"], kind="dify", key=key, ca=ca)


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
        url = f"{outputs['oauth']['issuer']}/oauth/token"
        answer = httpx.post(url, data=form, verify=verify, timeout=TOKEN_SECONDS, trust_env=False)
        answer.raise_for_status()
        return str(answer.json()["access_token"])
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise KitError("the token endpoint gave no token", "dify-kit bench asks as oauthCanary") from error


def _print(result: dict[str, Any]) -> None:
    table = Table("measure", "value", title=result["target"])
    for name in ("requests", "ok", "concurrency"):
        table.add_row(name, str(result[name]))
    table.add_row("requests/s", f"{result['throughput']:.1f}")
    for name, label in (("latencyMs", "latency"), ("firstTokenMs", "first token")):
        for percent, value in result[name].items():
            table.add_row(f"{label} {percent}", "-" if value is None else f"{value:.1f} ms")
    for error, count in result["errors"].items():
        table.add_row(f"error {error}", str(count))
    Console().print(table)
