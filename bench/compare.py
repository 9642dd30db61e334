"""bench/compare: the CPU time of the LLM proxy beside that of another commit, in pairs of short turns."""

import contextlib
import json
import os
import random
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import edge, llm, machine
from bench.llm_report import STREAM
from bench.proxies import Proxy, configured
from bench.report import Report, Table
from bench.rig import Rig, rig
from bench.rounds import median, percentile
from dify_kit.errors import KitError
from dify_kit.talk import say
from support.certificates import Pair, issue

ROOT = Path(__file__).parent.parent
RENDER_SECONDS = 120
BASE, THIS = "base", "this"
STREAMED = "stream"
# A body of so many words has about as many tokens.
LONG_WORDS = 100_000
SCRIPTS: Mapping[str, str] = {"small": "/bench/small.lua", "long": "/bench/long.lua"}
STREAMS: Mapping[str, int] = {**STREAM, "streams": 300, "at_once": 60, "events": 20}
# Run in the other commit's tree, with its modules: what these may have is what both commits have.
_RENDER = """
import json, pathlib, sys
from datetime import UTC, datetime
from bench import llm, proxies
given = json.load(sys.stdin)
secret, caller = llm.proxy_keys.issue("bench", datetime.now(UTC), requests_per_minute=0, concurrent=0)
context, edge = llm.ours(llm.edge_settings(given["key"], pathlib.Path(given["ca"]), caller), secret)
json.dump({
    "port": edge.port, "command": edge.command, "files": dict(edge.files), "tmpfs": dict(edge.tmpfs),
    "host": edge.request.host, "authorization": edge.request.authorization, "aliases": proxies.aliases(context),
}, sys.stdout)
"""
NOTES = (
    (
        f"small: the chat of bench/llm. long: a body of {LONG_WORDS:,} words. stream: {STREAMS['events']} events, "
        f"{STREAMS['at_once']} streams at a time."
    ),
    (
        "Each pair has a turn of both edges, in turns the one or the other first. A ratio is that of a pair; a figure "
        "is a median."
    ),
    (
        "CPU time is that of all processes of the edge. Others on the machine change it (caches, clock rates), hence "
        "pairs."
    ),
)


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """The edge of a commit, and the names of its upstreams."""

    proxy: Proxy
    aliases: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Taken:
    """One turn: CPU time in µs a request."""

    case: str
    pair: int
    name: str
    cpu: float


def long_chat() -> str:
    """Return a chat with a long question. The same one each time."""
    words = (
        "the",
        "model",
        "reads",
        "a",
        "long",
        "text",
        "of",
        "many",
        "lines",
        "which",
        "it",
        "keeps",
        "in",
        "mind",
    )
    chosen = random.Random(1)  # noqa: S311  # text, not a secret
    question = " ".join(chosen.choice(words) for _ in range(LONG_WORDS))
    return json.dumps({"model": llm.MODEL, "messages": [{"role": "user", "content": question}]})


@contextlib.contextmanager
def tree_of(commit: str) -> Iterator[Path]:
    """Yield a directory with the files of a commit, and remove it. Raises KitError when there is no such commit."""

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", "-C", str(ROOT), *arguments], check=False, capture_output=True, text=True, timeout=60
        )

    with tempfile.TemporaryDirectory(prefix="dify-kit-bench-") as scratch:
        tree = Path(scratch) / "tree"
        made = git("worktree", "add", "--detach", str(tree), commit)
        if made.returncode != 0:
            raise KitError(f"--base {commit}: {made.stderr.strip()}", "name a commit that `git log` shows")
        try:
            yield tree
        finally:
            git("worktree", "remove", "--force", str(tree))


def rendered(tree: Path, upstream_key: str, ca_file: Path) -> Rendered:
    """Render the edge with the modules of a tree. Raises KitError when these fail."""
    done = subprocess.run(
        [sys.executable, "-c", _RENDER],
        check=False,
        capture_output=True,
        text=True,
        cwd=tree,
        timeout=RENDER_SECONDS,
        input=json.dumps({"key": upstream_key, "ca": str(ca_file)}),
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tree), str(tree / "gateway")))},
    )
    if done.returncode != 0:
        raise KitError(
            f"the edge of {tree} cannot be rendered: {done.stderr.strip()[-800:]}",
            "compare with a commit whose bench/llm.py has `edge_settings` and `ours`, and whose packages are the same",
        )
    found: Mapping[str, Any] = json.loads(done.stdout)
    return Rendered(
        proxy=Proxy(
            name="edge",
            port=found["port"],
            command=tuple(found["command"]),
            files=found["files"],
            tmpfs=found["tmpfs"],
            request=llm.asked(found["authorization"], found["host"], llm.CHAT),
        ),
        aliases=(*found["aliases"], llm.UPSTREAM, llm.STREAMS),
    )


def turns(pairs: int) -> Iterator[tuple[int, str]]:
    """Yield A, B, B, A, A, B, ...: what changes from turn to turn meets both alike."""
    for number in range(1, pairs + 1):
        for name in (BASE, THIS) if number % 2 else (THIS, BASE):
            yield number, name


def ratios(found: Sequence[Taken], case: str) -> list[float]:
    """Return this edge's CPU time over the other's, of each pair."""
    by_turn = {(one.pair, one.name): one.cpu for one in found if one.case == case}
    return [by_turn[pair, THIS] / by_turn[pair, BASE] for pair, name in by_turn if name == THIS]


def table(found: Sequence[Taken]) -> Table:
    """Return what was asked for."""
    rows = []
    for case in dict.fromkeys(one.case for one in found):
        own = {
            name: [one.cpu for one in found if (one.case, one.name) == (case, name)] for name in (BASE, THIS)
        }
        of = ratios(found, case)
        micros = (median(own[BASE], float), median(own[THIS], float))
        rows.append((case, *micros, median(of, float), percentile(of, 0.25), percentile(of, 0.75), len(of)))
    columns = ("case", "base µs", "this µs", "ratio", "first quartile", "third quartile", "pairs")
    return Table(title="CPU time of a request", columns=columns, rows=tuple(rows))


def _taken(running: Rig, proxy: Proxy, case: str, seconds: int) -> float:
    if case == STREAMED:
        return _streamed(running, proxy)
    request = replace(proxy.request, script=SCRIPTS[case])
    return running.load(replace(proxy, request=request), seconds=seconds).cpu


def _streamed(running: Rig, proxy: Proxy) -> float:
    wanted = {**STREAMS, "model": llm.STREAMED, "authorization": proxy.request.authorization, "tls": False}
    before = running.cpu_seconds(proxy.name)
    streams = running.streams(
        proxy.request, proxy.port, wanted, seconds=STREAMS["deadline"] + llm.GRACE_SECONDS
    )
    if broken := [one["problem"] for one in streams if one["problem"]]:
        raise KitError(f"{len(broken)} of {len(streams)} streams broke, the first: {broken[0]}")
    return (running.cpu_seconds(proxy.name) - before) * 1_000_000 / len(streams)


@contextlib.contextmanager
def _rigs(
    upstream_key: str, trees: Mapping[str, Path], ca: Pair, pair: Pair
) -> Iterator[dict[str, tuple[Rig, Proxy]]]:
    """Yield a running rig with its edge, by name: each has a network, an upstream and a load of its own."""
    files = {llm.CERTIFICATE: pair.pem, llm.KEY: pair.key_pem}
    bodies = {"small": llm.chat(), "long": long_chat()}
    with tempfile.TemporaryDirectory(prefix="dify-kit-bench-") as scratch, contextlib.ExitStack() as stack:
        ca_file = Path(scratch) / "ca.pem"
        ca_file.write_text(ca.pem, encoding="ascii")
        found = {}
        for name, tree in trees.items():
            one = rendered(tree, upstream_key, ca_file)
            made = rig(
                "llm",
                [one.proxy],
                one.aliases,
                load_files={
                    path: configured("chat.lua", body=bodies[case], rest=0) for case, path in SCRIPTS.items()
                },
                upstream_files=files,
                services=lambda running: llm.start_streams(running, pair),
            )
            found[name] = (stack.enter_context(made), one.proxy)
        yield found


def measure(base: str, *, pairs: int, seconds: int) -> list[Taken]:
    """Measure both edges and return every turn."""
    ca = issue(ca=True, name="bench CA")
    pair = issue([llm.UPSTREAM, llm.STREAMS], issuer=ca)
    found = []
    with (
        tree_of(base) as tree,
        _rigs(f"sk-{secrets.token_urlsafe(32)}", {BASE: tree, THIS: ROOT}, ca, pair) as rigs,
    ):
        for case in (*SCRIPTS, STREAMED):
            for running, proxy in rigs.values():
                _taken(running, proxy, case, edge.WARM_UP_SECONDS)
            for number, name in turns(pairs):
                one = Taken(case=case, pair=number, name=name, cpu=_taken(*rigs[name], case, seconds))
                say(f"  {case}, pair {number} of {pairs}: {name:<4} {one.cpu:8.1f} µs CPU")
                found.append(one)
    return found


def run(command: str, *, base: str, rounds: int, seconds: int) -> Report:
    """Measure, and return the report. Raises KitError without a commit to compare with."""
    if not base:
        raise KitError("compare: --base is empty", "name a commit: `python -m bench compare --base HEAD~1`")
    facts = machine.facts()
    found = measure(base, pairs=rounds, seconds=seconds)
    return Report(
        name="compare",
        title=f"The LLM proxy beside that of {base}",
        command=command,
        machine=facts,
        parameters={"base": base, "pairs": rounds, "seconds": seconds, "long body bytes": len(long_chat())},
        tables=(table(found),),
        notes=NOTES,
        raw=[vars(one) for one in found],
        summary={
            case: median(ratios(found, case), float) for case in dict.fromkeys(one.case for one in found)
        },
    )
