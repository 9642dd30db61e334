"""The keys of the LLM proxy's upstreams: where they come from, where they are kept, whether they work."""

import base64
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import docker
import typer

from dify_kit.engine.cli import Pulumi
from dify_kit.errors import KitError, UsageError
from dify_kit.stack import llm_usage, settings
from dify_kit.workspace.files import PROJECT, StackFiles
from infra import engine, hints
from infra.catalogue.llm_presets import key_problem
from infra.edge.paths import CURRENT
from infra.engine.runtime import RUNNING, WorkloadError, runtime
from infra.settings.given import parsed
from infra.settings.llm import KEYS
from infra.settings.llm_upstreams import LOOPBACK_PROBLEM, UpstreamAddress, read_upstreams

SETTING = f"{PROJECT}:{KEYS}"
CHECK_SECONDS = 15.0
# Of a shorter key this would show half.
SHOWN_FROM = 20
LONGEST_ANSWER = 4 * 1024 * 1024
_UNAUTHORIZED = (401, 403)
_FINE = 200
# Exit code and output of curl as one line, so that a connection which cannot be closed in one direction carries them.
_CURL = (
    'read -r given; said=$(printf %s "$given" | base64 -d | curl --config - 2>&1); code=$?; '
    'echo "$code $(printf %s "$said" | base64 -w 0)"'
)
ENGINE_SECONDS = 30


def configured(files: StackFiles) -> dict[str, UpstreamAddress]:
    """Return the upstreams of a stack by name, also where the proxy is off. Raises KitError with every problem."""
    llm = settings.section(files, "llm")
    found = read_upstreams(llm)
    if any(LOOPBACK_PROBLEM in line for line in llm.problems.lines):
        # Each line says what to use; here the engine can tell the address itself.
        bridge = _bridge()
        raise KitError("\n".join(llm.problems.lines), f"on this machine it is {bridge}" if bridge else "")
    settings.require(llm)
    return {one.name: one for one in found}


def served(files: StackFiles) -> dict[str, set[str]]:
    """Return the models that `dify:llm` names, as each upstream calls them; none where the settings have problems."""
    reading = settings.read(files)
    llm = reading.settings.llm if reading.sound("llm") else None
    named: dict[str, set[str]] = {}
    for targets in [*llm.models.values(), *llm.embeddings.values()] if llm else []:
        for one in targets:
            named.setdefault(one.upstream, set()).add(one.model)
    return named


def one_of(files: StackFiles, name: str) -> UpstreamAddress:
    """Return an upstream by its name. Raises UsageError when there is none."""
    known = configured(files)
    if name not in known:
        raise UsageError(f"{PROJECT}:llm.upstreams has no {name}", hints.nearest(name, known))
    return known[name]


def obtain(upstream: UpstreamAddress, *, from_stdin: bool, environ: Mapping[str, str] | None = None) -> str:
    """Return a key from standard input, else the preset's variable, else a prompt. Raises KitError."""
    environ = os.environ if environ is None else environ
    known = upstream.known
    if from_stdin:
        key, source = sys.stdin.readline().strip(), "standard input"
    elif environ.get(known.variable, "").strip():
        key, source = environ[known.variable].strip(), known.variable
    elif sys.stdin.isatty():
        key, source = typer.prompt(f"Key of {upstream.name}", hide_input=True, err=True).strip(), "your input"
    else:
        key, source = "", ""
    where = f"; a key is made at {known.register}" if known.register else ""
    if not key and from_stdin:
        raise KitError(
            f"no key for upstream {upstream.name}: standard input was empty", f"pass the key on it{where}"
        )
    if not key:
        raise KitError(
            f"no key for upstream {upstream.name}: {known.variable} is not set",
            f"set {known.variable}, or give the key on standard input with --stdin{where}",
        )
    if problem := key_problem(upstream.preset, key):
        raise KitError(f"the key from {source} {problem}", f"use a key of {upstream.preset}{where}")
    return key


def store(pulumi: Pulumi, upstream: str, key: str) -> None:
    """Put a key into the stack's encrypted settings; it goes there by standard input."""
    pulumi.run("config", "set", "--secret", "--path", f"{SETTING}.{upstream}", stdin=key)


def stored(pulumi: Pulumi) -> dict[str, str]:
    """Return the keys by upstream, in plain text: never print them."""
    entries = json.loads(pulumi.run("config", "--json", "--show-secrets").stdout)
    entry = entries.get(SETTING) or {}
    value = parsed(KEYS, entry.get("objectValue", entry.get("value", "{}")))
    return {str(name): str(key) for name, key in value.items()} if isinstance(value, dict) else {}


def masked(key: str) -> str:
    """Return a key as it may be shown: its first 8 and last 4 characters, nothing of a short one."""
    return f"{key[:8]}...{key[-4:]}" if len(key) >= SHOWN_FROM else "********"


def edge_container(pulumi: Pulumi) -> str:
    """Return the running nginx from which upstreams are called; empty where the stack is not deployed."""
    name = llm_usage.counter(pulumi.state().outputs.get("containers") or {})
    if not name:
        return ""
    try:
        with runtime(name, ENGINE_SECONDS) as edge:
            state = edge.state()
    except (WorkloadError, engine.EngineChoiceError, docker.errors.DockerException, OSError) as problem:
        raise KitError(
            f"{name} cannot be queried: {problem}",
            f"`{hints.kit('doctor', stack=pulumi.files.stack)}` checks it",
        ) from None
    return name if state and state.status == RUNNING else ""


def ask_models(upstream: UpstreamAddress, key: str, container: str = "", *, stack: str = "") -> list[str]:
    """Return the names of the models that an upstream has for this key. Raises KitError.

    The request is sent from inside `container`, the edge's, as those of callers; from this machine where that is empty.
    Hints name `stack`.
    """
    set_key = hints.kit("keys", "set", upstream.name, stack=stack)
    if not key:
        raise KitError(f"{upstream.name} has no key", f"set it: `{set_key}`")
    url = f"{upstream.base_url}/models"
    headers = {"Authorization": f"Bearer {key}"}
    if upstream.preset == "anthropic":
        # Its list of models is not part of what it offers in OpenAI's schema.
        headers = {"x-api-key": key, "anthropic-version": "2023-06-01"}
    ask = _from_inside if container else _from_here
    status, body = ask(upstream, url, headers, container)
    if status in _UNAUTHORIZED:
        where = upstream.known.register
        raise KitError(
            f"{upstream.name}: {url} refuses the key ({status})",
            f"`{set_key}` with another one" + (f", from {where}" if where else ""),
        )
    if status != _FINE:
        raise KitError(f"{upstream.name}: {url} answers {status}", "check llm.upstreams and try again")
    try:
        return [str(model["id"]) for model in json.loads(body)["data"]]
    except (ValueError, KeyError, TypeError):
        raise KitError(f"{upstream.name}: {url} answers in another schema", "is baseUrl right?") from None


def _from_here(upstream: UpstreamAddress, url: str, headers: Mapping[str, str], _: str) -> tuple[int, bytes]:
    import httpx  # noqa: PLC0415  # its command line comes along with it, and `up` needs neither

    try:
        with httpx.Client(verify=_trust(upstream), timeout=CHECK_SECONDS) as client:
            answer = client.get(url, headers=dict(headers))
    except httpx.HTTPError as problem:
        raise KitError(
            f"{upstream.name}: {url} cannot be reached: {type(problem).__name__}: {problem}",
            "check baseUrl, caFile and this machine's way to it",
        ) from None
    return answer.status_code, answer.content


def _from_inside(
    upstream: UpstreamAddress, url: str, headers: Mapping[str, str], container: str
) -> tuple[int, bytes]:
    """Send the request by curl in the edge. The key is passed by stdin: other users see arguments."""
    options = [f'url = "{url}"', *(f'header = "{name}: {value}"' for name, value in headers.items())]
    options += ["silent", "show-error", f"max-time = {CHECK_SECONDS:.0f}", f"max-filesize = {LONGEST_ANSWER}"]
    options.append('write-out = "\\n%{http_code}"')
    if upstream.ca_file:
        # What is deployed is what requests are checked against.
        options.append(f'cacert = "{CURRENT}/llm/{upstream.name}.pem"')
    try:
        exit_code, out = _curl(container, options)
    except (WorkloadError, docker.errors.DockerException, OSError) as problem:
        raise KitError(
            f"{container} cannot be queried: {problem}", f"`{hints.kit('doctor')}` checks it"
        ) from None
    if exit_code:
        # curl writes the status that it does not have, too.
        said = (
            out.decode(errors="replace").strip().removesuffix("000").strip()[-200:]
            or f"curl ends with {exit_code}"
        )
        raise KitError(
            f"{upstream.name}: {url} cannot be reached from inside the edge: {said}",
            "check baseUrl, caFile and the way from the container to it; this machine's own way may be another one",
        )
    body, _, status = out.rpartition(b"\n")
    return int(status), body


def _curl(container: str, options: Sequence[str]) -> tuple[int, bytes]:
    """Run curl in the edge with a configuration that no argument shows; return its exit code and what it wrote."""
    line = base64.b64encode("\n".join(options).encode()) + b"\n"
    with runtime(container, ENGINE_SECONDS) as edge:
        said = edge.ask(["sh", "-c", _CURL], seconds=CHECK_SECONDS + ENGINE_SECONDS, line=line)
    code, blank, output = said.stdout.strip().partition(b" ")
    if not blank and not code:
        raise WorkloadError(said.stderr.decode(errors="replace").strip()[-200:] or "no answer")
    return int(code), base64.b64decode(output)


def _bridge() -> str:
    """Return the address of Docker's bridge; empty when the engine does not tell it."""
    try:
        found: Any = engine.client(ENGINE_SECONDS).networks.get("bridge")
        address = found.attrs["IPAM"]["Config"][0]["Gateway"]
    except (docker.errors.DockerException, OSError, KeyError, IndexError, TypeError):
        return ""
    return str(address)


def _trust(upstream: UpstreamAddress) -> bool | str:
    if not upstream.ca_file:
        return True
    path = Path(upstream.ca_file).expanduser()
    if not path.is_file():
        raise KitError(
            f"llm.upstreams.{upstream.name}.caFile: {path} is not a file", "name the CA's root file"
        )
    return str(path)
