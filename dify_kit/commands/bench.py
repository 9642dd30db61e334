"""The command that measures a deployed stack, or any base URL."""

import asyncio
import datetime as dt
import json
import os
import ssl
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from dify_kit.app import DEFAULT_STACK, Stack, app
from dify_kit.benchmark import deployed, report
from dify_kit.benchmark.chart import chart as chart_of
from dify_kit.benchmark.load import Limits, Run, run
from dify_kit.benchmark.targets import Target
from dify_kit.errors import KitError, UsageError
from dify_kit.talk import say, warn


class Mode(StrEnum):
    """How an answer comes."""

    STREAMING = "streaming"
    BLOCKING = "blocking"


@app.command()
def bench(  # noqa: PLR0917  # Typer calls it by name
    stack: Stack = DEFAULT_STACK,
    via: Annotated[
        list[str], typer.Option(help="The way into the stack: api-key, oauth or proxy. May be repeated.")
    ] = ["api-key"],  # noqa: B006  # Typer copies it
    url: Annotated[str, typer.Option(help="A base URL in place of the stack, with its /v1.")] = "",
    kind: Annotated[str, typer.Option(help="The API of --url: dify or openai.")] = "dify",
    key_variable: Annotated[
        str, typer.Option(help="The variable with the key of --url, or of the proxy.")
    ] = "BENCH_KEY",
    model: Annotated[str, typer.Option(help="The model to ask, for openai.")] = "gpt-4.1",
    mode: Annotated[Mode, typer.Option(help="How answers come.")] = Mode.STREAMING,
    requests: Annotated[int, typer.Option(min=1, help="The largest number of requests.")] = 50,
    seconds: Annotated[float, typer.Option(min=0.1, help="At most so long.")] = 30,
    concurrency: Annotated[int, typer.Option(min=1, help="Concurrent requests.")] = 4,
    ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificates (PEM) to trust besides the system's.")
    ] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the results to a file.")] = None,
    chart: Annotated[
        Path | None, typer.Option(help="Draw percentiles and throughput into an SVG file.")
    ] = None,
) -> None:
    """Measure latency, time to first token, errors and throughput; bounded by requests and seconds."""
    _check_file("--json", as_json)
    _check_file("--chart", chart, suffix=".svg")
    streaming, trusted = mode is Mode.STREAMING, _certificates(ca)
    if url:
        targets = [_given(url, kind, key_variable, model, trusted, streaming=streaming)]
    else:
        targets = _deployed(stack, via, key_variable, model, trusted, streaming=streaming)
    started = dt.datetime.now(dt.UTC)
    limits = Limits(requests=requests, seconds=seconds, concurrency=concurrency)
    results = []
    for target in targets:
        found = _measured(target, limits)
        results.append(report.result_of(target, found, limits.clients))
        report.show(results[-1])
        if found.left:
            warn(f"{target.name}: {found.left} conversations could not be deleted")
    if as_json:
        _write("--json", as_json, json.dumps(results, indent=2) + "\n")
    if chart:
        place = targets[0].name if url else f"stack {stack}"
        _write("--chart", chart, chart_of(results, place, started))
    failed = [result["target"] for result in results if not result["ok"]]
    if failed:
        raise KitError(f"{', '.join(failed)}: no request succeeded", "the table counts the errors by kind")


def _measured(target: Target, limits: Limits) -> Run:
    def tell(count: int) -> None:
        if count % 10 == 0:
            say(f"{target.name}: {count} of {limits.requests}")

    return asyncio.run(run(target, limits, tell))


def _certificates(file: Path | None) -> str:
    """Return the text of a file of certificates. Raises UsageError when it has none."""
    if file is None:
        return ""
    try:
        text = file.read_text(encoding="ascii")
        ssl.create_default_context(cadata=text)
    except OSError as error:
        fix = "name a file of certificates, for example that of the export `tls`"
        if isinstance(error, ssl.SSLError):
            raise UsageError(f"--ca {file}: no certificate in PEM form", fix) from error
        raise UsageError(f"--ca {file}: {error.strerror}", fix) from error
    except ValueError as error:
        raise UsageError(f"--ca {file}: not a text in PEM form", "convert it by `openssl x509`") from error
    return text


def _check_file(option: str, file: Path | None, suffix: str = "") -> None:
    if file is None:
        return
    if not file.parent.is_dir() or file.is_dir():
        raise UsageError(f"{option} {file}: cannot be written", "name a file in a directory that exists")
    if suffix and file.suffix.lower() != suffix:
        raise UsageError(f"{option} {file}: not an {suffix} file", f"for example bench{suffix}")


def _write(option: str, file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise KitError(f"{option} {file}: {error.strerror}", "name a file that can be written") from error


def _given(url: str, kind: str, variable: str, model: str, ca: str, *, streaming: bool) -> Target:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
        raise UsageError("--url: not a base URL", "for example https://host/v1, without a key in it")
    if kind not in {"dify", "openai"}:
        raise UsageError(f"--kind {kind}: not known", "dify or openai")
    key = _key(variable)
    return Target(
        name=parts.hostname,
        url=url.rstrip("/"),
        kind=kind,
        key=key,
        model=model,
        ca=ca,
        streaming=streaming,
    )


def _key(variable: str) -> str:
    key = os.environ.get(variable, "")
    if not key or not key.isascii() or not key.isprintable():
        raise UsageError(f"{variable} has no usable key", f"export {variable}=..., or name another variable")
    return key


def _deployed(
    stack: str, via: list[str], variable: str, model: str, ca: str, *, streaming: bool
) -> list[Target]:
    ways = list(dict.fromkeys(via))
    for way in ways:
        if way not in deployed.WAYS:
            raise UsageError(f"--via {way}: not known", "api-key, oauth or proxy")
    key = _key(variable) if "proxy" in ways else ""
    outputs = deployed.exports(stack, ca)
    return [
        deployed.by_proxy(stack, outputs, key, model, streaming=streaming)
        if way == "proxy"
        else deployed.by_canary(stack, outputs, way, streaming=streaming)
        for way in ways
    ]
