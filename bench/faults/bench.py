"""bench/faults: strike a stack under load, one fault after the other."""

import contextlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from bench import machine
from bench.faults.load import CALLER, CLIENT, MODEL, PAUSE_SECONDS, TENANT, WAYS, Access, Load
from bench.faults.small_volumes import small
from bench.faults.strikes import FAULTS, Fault, Kind, named, strike
from bench.report import Report, Table
from dify_kit.errors import KitError
from dify_kit.talk import say
from support.provider import Provider
from support.stacks import SMALLEST, Stack

STEADY_SECONDS = 5.0
RECOVERY_SECONDS = 240.0
# nginx writes its counts every 2 s, and a killed one loses those of the time since: docs/guides/llm-proxy.md.
UNCOUNTED_BY = frozenset({Fault(kind=Kind.KILLED, service="nginx")})


def _suffered(stack: Stack, fault: Fault, access: Access) -> dict[str, Any]:
    """Return what clients saw of one fault."""
    load = Load(stack=stack, access=access)
    with load.running():
        time.sleep(STEADY_SECONDS)
        moment = time.monotonic()
        strike(stack, fault)
        ends = time.monotonic() + RECOVERY_SECONDS
        while not (load.well() and (not fault.service or stack.well(fault.service))):
            if time.monotonic() > ends:
                last = {way: sent.calls[-3:] for way, sent in load.sent.items()}
                raise KitError(
                    f"{named(fault)}: after {RECOVERY_SECONDS:.0f} s clients still fail: {last}",
                    "see the logs of the stack's services",
                )
            time.sleep(1)
    return {
        "fault": named(fault),
        **{way: len(sent.calls) for way, sent in load.sent.items()},
        **{f"{way} failed": sum(sent.failures().values()) for way, sent in load.sent.items()},
        "answers": shown({way: sent.failures() for way, sent in load.sent.items()}),
        "seconds": max(sent.recovered_after(moment) for sent in load.sent.values()),
        "slowest": max(sent.slowest() for sent in load.sent.values()),
        "lost": sum((lost := load.lost()).values()),
        "lost what": ", ".join(f"{number} {what}" for what, number in lost.items()),
        "not counted": load.uncounted(),
        "may lose counts": fault in UNCOUNTED_BY,
    }


def shown(failures: Mapping[str, Counter[int]]) -> str:
    """Return how failed requests were answered, as text."""
    parts = [
        f"{way}: {number} x {status or 'no answer'}"
        for way, counted in failures.items()
        for status, number in sorted(counted.items())
    ]
    return ", ".join(parts) or "none"


def _done(stack: Stack, *arguments: str, stdin: str = "") -> str:
    """Run `dify-kit` and return what it printed. Raises KitError."""
    done = stack.kit(*arguments, "--stack", stack.name, stdin=stdin)
    if done.code:
        raise KitError(f"`dify-kit {' '.join(arguments)}` failed:\n{done.output[-3000:]}")
    return done.stdout.strip()


@contextlib.contextmanager
def _deployed(home: Path) -> Iterator[tuple[Stack, Access]]:
    """Yield a stack of its own with small volumes, a client and a model, and remove it."""
    stack = Stack(home=home / "home", release=SMALLEST)
    readable = home / "provider"
    readable.mkdir(mode=0o755)
    home.chmod(0o755)
    with contextlib.ExitStack() as undone:
        undone.callback(stack.remove)
        provider = Provider(readable)
        # A network goes when nothing is in it any more.
        undone.callback(provider.remove)
        say(f"deploying stack {stack.name} on port {stack.port}; it is removed at the end")
        given = {
            "oauth": {"enabled": True, "tenants": {TENANT: {"app": "echo-chat"}}},
            "llm": {
                "enabled": True,
                "upstreams": {"provider": provider.settings},
                "models": {MODEL: ["provider"]},
                "embeddings": {},
            },
            # Dify would try its models before the provider is in the stack's network.
            "modelProviders": {"proxy": {"enabled": False}},
        }
        created = stack.init(set=[f"{key}={json.dumps(value)}" for key, value in given.items()])
        if created.code:
            raise KitError(f"`dify-kit init` failed:\n{created.output[-3000:]}")
        # After `init`, which refuses the name of a stack that left volumes.
        undone.enter_context(small(stack.name))
        secret = _done(stack, "client", "add", CLIENT, "--tenant", TENANT, "--scope", "chat")
        _done(stack, "keys", "set", "provider", "--stdin", stdin=provider.keys[0])
        llm_key = _done(stack, "keys", "issue", CALLER, "--requests-per-minute", "0", "--concurrent", "0")
        _done(stack, "up", "--skip-setup")
        provider.join(stack)
        key = stack.outputs(secrets_too=True)["appKeys"]["echo-chat"]
        access = Access(app_key=key, client_secret=secret, token=_token(stack, secret), llm_key=llm_key)
        yield stack, access


def _token(stack: Stack, secret: str) -> str:
    form = {"grant_type": "client_credentials", "client_id": CLIENT, "client_secret": secret}
    answer = httpx.post(f"{stack.url}/oauth/token", data=form, timeout=60)
    answer.raise_for_status()
    return str(answer.json()["access_token"])


def run(command: str, *, faults: Sequence[Fault] = FAULTS) -> Report:
    """Deploy a stack of its own, strike it with each fault under load, remove it, and return the report."""
    facts = machine.facts()
    raw = []
    with (
        tempfile.TemporaryDirectory(prefix="dify-kit-bench-") as home,
        _deployed(Path(home)) as (stack, access),
    ):
        for fault in faults:
            found = _suffered(stack, fault, access)
            failed = ", ".join(f"{found[f'{way} failed']} of {found[way]} {way}" for way in WAYS)
            say(f"  {found['fault']}: failed {failed}; lost {found['lost what'] or 'nothing'}")
            raw.append(found)
    return report_of(command, raw, facts=facts)


def report_of(command: str, raw: list[dict[str, Any]], *, facts: Mapping[str, str]) -> Report:
    """Return the report of the faults."""
    problems = [f"{one['fault']}: {one['lost what']} lost" for one in raw if one["lost"]]
    problems += [
        f"{one['fault']}: {one['not counted']} LLM calls not counted"
        for one in raw
        if one["not counted"] and not one["may lose counts"]
    ]
    return Report(
        name="faults",
        title="Faults under load",
        command=command,
        machine=facts,
        parameters={
            "senders": len(WAYS),
            "pause between a sender's requests in seconds": PAUSE_SECONDS,
            "release": SMALLEST,
            "images": "stand-ins; PostgreSQL, Redis, nginx and the gateway are real",
        },
        tables=(
            Table(
                title="What clients saw",
                columns=(
                    "fault",
                    *(f"{way} failed" for way in WAYS),
                    "answers",
                    "seconds to the last failure",
                    "slowest good answer in seconds",
                    "answered and lost",
                    "LLM calls not counted",
                ),
                rows=tuple(
                    (
                        one["fault"],
                        *(f"{one[f'{way} failed']} of {one[way]}" for way in WAYS),
                        one["answers"],
                        float(one["seconds"]),
                        float(one["slowest"]),
                        one["lost"],
                        one["not counted"],
                    )
                    for one in raw
                ),
            ),
        ),
        notes=(
            "promised: nothing that was answered is lost, and every fault ends without a hand",
            "a killed service gets SIGKILL, and the engine starts it again; a frozen one keeps its connections",
            (
                "each sender waits for its answer: chats and uploads by an API key, `/v1/info` by an access token, new "
                "tokens, and completions through the LLM proxy"
            ),
            (
                "lost are chats that are not in their conversation, files whose SHA-256 the storage lacks, and tokens "
                "that are refused; nginx writes the counts of LLM calls every 2 s, so a killed one may lack the last"
            ),
            (
                "volumes are of a few MiB in memory; names are slow while the engine, which resolves them, is stopped "
                "for most of the time"
            ),
        ),
        raw=raw,
        problem="; ".join(problems),
        summary={
            one["fault"]: {"failed": sum(one[f"{way} failed"] for way in WAYS), "seconds": one["seconds"]}
            for one in raw
        },
    )
