"""bench/llm: a chat through our proxy, beside LiteLLM with one and two workers, and no proxy, on one upstream."""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench import edge, images, machine, proxies
from bench.load import CONNECTIONS, THREADS
from bench.proxies import Proxy, Request, configured
from bench.report import Cell, Report, Table
from bench.rig import Measured, Rig, rig
from bench.rounds import Turn, interleaved, median, percentile
from dify_kit.errors import KitError
from dify_kit.talk import say
from infra.catalogue.releases import RELEASES
from infra.edge import llm as edge_llm
from infra.edge.context import EdgeContext, edge_context
from infra.edge.paths import EDGE_DIRECTORY, USAGE_DIRECTORY
from infra.platforms.litellm_image import DIRECTORY as LITELLM_DIRECTORY
from infra.settings import proxy_keys
from infra.settings.stack import Settings
from support.certificates import Pair, issue
from support.configuration import resolved, settings

DIRECT, OURS, LITELLM_1, LITELLM_2 = "direct", "dify-kit", "LiteLLM, 1 worker", "LiteLLM, 2 workers"
UPSTREAM, STREAMS = "llm-upstream", "llm-streams"
STREAMS_PORT = 5002
LITELLM_PORTS: Mapping[str, int] = {LITELLM_1: 9011, LITELLM_2: 9012}
MODEL, STREAMED = "gpt-4.1", "gpt-4.1-streamed"
CHAT, UPSTREAM_CHAT = "/llm/v1/chat/completions", "/v1/chat/completions"
CERTIFICATE, KEY, CA = "/bench/upstream.pem", "/bench/upstream.key", "/bench/ca.pem"
# Each connection rests so long (ms, mean) before a request. Otherwise both cores are full, and what is measured is the
# queue in front of them.
PACED, GENTLE = 8, 600
SCRIPTS: Mapping[int, str] = {rest: f"/bench/chat-{rest}.lua" for rest in (0, PACED, GENTLE)}
# Short streams, a few at a time: what is measured is the way, not the queue.
STREAM = {"streams": 24, "at_once": 2, "events": 10, "gap": 20, "deadline": 30}
GRACE_SECONDS = 60
# Goals, of issue 6 and docs/decisions/0008. Nothing fails when one is missed.
GOALS: Mapping[str, float] = {
    "added p50 ms": 1,
    "added p99 ms": 5,
    "requests/s of LiteLLM, 1 worker, on a core of its own": 50,
    "requests/s of LiteLLM, 2 workers, on a core of its own": 50,
    "requests/s of LiteLLM, 1 worker, all on the same cores": 50,
    "requests/s of LiteLLM, 2 workers, all on the same cores": 50,
    "added to the first token ms": 3,
}
NOTES = (
    f"{DIRECT}: the load asks the upstream itself, over TLS; its CPU time is the upstream's.",
    (
        f"{OURS}: the edge with `dify:llm`: a proxy key as the caller, limits, a budget, metering, the JSON access "
        "log. It checks the upstream's certificate, as LiteLLM does."
    ),
    (
        "LiteLLM: set up for production as it is documented, but without a database: the master key as the caller, no "
        "budgets, no spend kept, no access log. With two workers it is served by granian: under uvicorn, its default, "
        "one worker takes all connections that are opened at once, and the other has nothing to do."
    ),
    (
        "On a core of its own: the proxy, whatever number of workers it has, gets one core, load and upstream the "
        "other one. What one core carries is the proxy's alone."
    ),
    (
        "All on the same cores: load, proxy and upstream share two full cores (LiteLLM's one worker fills one), and "
        "load and upstream take about a third from a proxy that is fast. What a proxy adds there is mostly waiting "
        "for a core, so the goals for latency are judged paced."
    ),
    (
        f"Paced: each of the connections rests {PACED} ms (mean) before a request; LiteLLM cannot keep up with that. "
        f"Gentle: {GENTLE} ms, which it can; p99 of so few requests is coarse."
    ),
    (
        "First token: from the request, sent over an open connection, to the first event with content; "
        f"{STREAM['at_once']} streams at a time."
    ),
)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """One turn: as many requests as go through, on a core of its own and on all, paced and gentle, and streams."""

    alone: Measured
    full: Measured
    paced: Measured
    gentle: Measured
    streams: Sequence[Mapping[str, Any]]

    @property
    def first_tokens(self) -> list[float]:
        """How long each stream's first token took, in ms."""
        return [one["first"] / 1000 for one in self.streams]


@dataclass(frozen=True, kw_only=True)
class Way:
    """Something that is measured: how it is asked for an answer, and where for a stream (a port, `tls` or not)."""

    proxy: Proxy
    stream_port: int
    stream_tls: bool = False


def chat(model: str = MODEL) -> str:
    """Return the body of the request: of a size that a first question with instructions has."""
    system = "You are a helpful assistant. Answer briefly, in the language of the question, and say so when unsure. "
    return json.dumps(
        {
            "model": model,
            "messages": [
                {"role": "system", "content": system * 4},
                {"role": "user", "content": "What jumps over the lazy dog?"},
            ],
            "temperature": 0.2,
        }
    )


def edge_settings(upstream_key: str, ca_file: Path, caller: proxy_keys.ProxyKey) -> Settings:
    """Return the settings of the measured edge: limits and a budget that the load does not reach."""
    plain = {
        **proxies.EDGE_SETTINGS,
        "llm": {
            "enabled": True,
            "upstreams": {
                name: {"baseUrl": f"https://{host}:{port}/v1", "caFile": str(ca_file)}
                for name, host, port in (
                    ("fast", UPSTREAM, proxies.UPSTREAM_PORT),
                    ("streams", STREAMS, STREAMS_PORT),
                )
            },
            "models": {MODEL: ["fast"], STREAMED: ["streams"]},
            "embeddings": {},
            "limits": {"requests": 1_000_000, "seconds": 1, "burst": 0, "concurrent": 10_000},
            "monthlyBudget": 1_000_000,
            "prices": {STREAMED: {"input": 2, "output": 8}},
        },
    }
    found = settings(plain, {"llmKeys": json.dumps(dict.fromkeys(("fast", "streams"), upstream_key))})
    assert found.llm is not None  # it is enabled
    return replace(found, llm=replace(found.llm, keys=(caller,)))


def ours(found: Settings, secret: str) -> tuple[EdgeContext, Proxy]:
    """Return what the edge is rendered from, and the edge."""
    context = edge_context(found, RELEASES[found.release])
    more = {**resolved(edge_llm.private_files(found.llm)), **edge_llm.public_files(found.llm)}
    files = {
        **proxies.live_files(context),
        **{f"{EDGE_DIRECTORY}/{path}": text for path, text in more.items()},
    }
    made = proxies.edge(context, files)
    return context, replace(
        made,
        name="edge",
        request=asked(f"Bearer {secret}", context.server_names[0], CHAT),
        tmpfs={**made.tmpfs, USAGE_DIRECTORY: f"uid={proxies.NGINX_UID},mode=0700"},
    )


def asked(authorization: str, host: str, path: str, scheme: str = "http") -> Request:
    """Return the request that everyone gets, each at its own address."""
    return Request(
        host=host,
        path=path,
        authorization=authorization,
        scheme=scheme,
        script=SCRIPTS[0],
        body=chat(),
    )


def litellm(name: str, workers: int, upstream_key: str, ca: Pair) -> Proxy:
    """Return LiteLLM with so many workers."""
    port, key = LITELLM_PORTS[name], f"sk-{secrets.token_urlsafe(32)}"
    config = configured(
        "litellm.yaml",
        models={MODEL: (UPSTREAM, proxies.UPSTREAM_PORT), STREAMED: (STREAMS, STREAMS_PORT)},
        key=upstream_key,
        master_key=key,
    )
    return Proxy(
        name=f"litellm-{workers}",
        port=port,
        command=(
            *("--config", "/bench/litellm.yaml", "--host", "127.0.0.1", "--port", str(port)),
            *("--num_workers", str(workers), "--telemetry", "False"),
            *(("--run_granian",) if workers > 1 else ()),
        ),
        request=asked(f"Bearer {key}", "localhost", CHAT.removeprefix("/llm")),
        files={"/bench/litellm.yaml": config, CA: ca.pem},
        environment={
            # It runs without a way out.
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION",
            "SSL_CERT_FILE": CA,
            "HOME": "/tmp",  # noqa: S108  # the container's own
        },
        user="1003",
        image=images.of("litellm"),
        memory="2g",
        start_seconds=120,
    )


def direct(upstream_key: str) -> Proxy:
    """Return the upstream as if it were a proxy."""
    return Proxy(
        name="upstream",
        port=proxies.UPSTREAM_PORT,
        command=(),
        request=asked(f"Bearer {upstream_key}", UPSTREAM, UPSTREAM_CHAT, "https"),
    )


def load_files() -> dict[str, str]:
    """Return the files of wrk's container: the request, with and without rests."""
    return {path: configured("chat.lua", body=chat(), rest=rest) for rest, path in SCRIPTS.items()}


def start_streams(running: Rig, pair: Pair) -> None:
    """Start the upstream of streams beside the other one."""
    running.serve(
        "streams",
        images.bench(),
        ["python3", "/bench/sse_server.py", str(STREAMS_PORT), CERTIFICATE, KEY],
        {CERTIFICATE: pair.pem, KEY: pair.key_pem},
    )


def take(running: Rig, way: Way, seconds: int) -> Taken:
    """Load one way with each script, then open streams through it. Raises KitError when anything is refused."""

    def loaded(rest: int) -> Measured:
        request = replace(way.proxy.request, script=SCRIPTS[rest])
        return running.load(replace(way.proxy, request=request), seconds=max(1, seconds))

    request = way.proxy.request
    wanted = {
        **STREAM,
        "model": STREAMED,
        "authorization": request.authorization,
        "tls": way.stream_tls,
    }
    streams = running.streams(request, way.stream_port, wanted, seconds=STREAM["deadline"] + GRACE_SECONDS)
    if broken := [one["problem"] for one in streams if one["problem"]]:
        raise KitError(f"{way.proxy.name}: {len(broken)} streams broke, the first: {broken[0]}")
    with running.alone(way.proxy.name):
        alone = loaded(0)
    return Taken(alone=alone, full=loaded(0), paced=loaded(PACED), gentle=loaded(GENTLE), streams=streams)


def measure(*, rounds: int, seconds: int) -> list[tuple[Turn, Taken]]:
    """Load everyone in turn and return every turn's figures."""
    upstream_key = f"sk-{secrets.token_urlsafe(32)}"
    secret, caller = proxy_keys.issue("bench", datetime.now(UTC), requests_per_minute=0, concurrent=0)
    ca = issue(ca=True, name="bench CA")
    pair = issue([UPSTREAM, STREAMS], issuer=ca)
    with TemporaryDirectory(prefix="dify-kit-bench-") as scratch:
        ca_file = Path(scratch) / "ca.pem"
        ca_file.write_text(ca.pem, encoding="ascii")
        context, our_edge = ours(edge_settings(upstream_key, ca_file, caller), secret)
    peers = {
        LITELLM_1: litellm(LITELLM_1, 1, upstream_key, ca),
        LITELLM_2: litellm(LITELLM_2, 2, upstream_key, ca),
    }
    ways = {
        DIRECT: Way(proxy=direct(upstream_key), stream_port=STREAMS_PORT, stream_tls=True),
        OURS: Way(proxy=our_edge, stream_port=our_edge.port),
        **{name: Way(proxy=proxy, stream_port=proxy.port) for name, proxy in peers.items()},
    }
    found = []
    with rig(
        "llm",
        [our_edge, *peers.values()],
        [*proxies.aliases(context), UPSTREAM, STREAMS],
        load_files=load_files(),
        upstream_files={CERTIFICATE: pair.pem, KEY: pair.key_pem},
        services=lambda running: start_streams(running, pair),
    ) as running:
        for way in ways.values():
            running.load(way.proxy, seconds=edge.WARM_UP_SECONDS)
        for turn in interleaved(list(ways), rounds):
            one = take(running, ways[turn.name], seconds)
            say(
                f"  round {turn.round} of {rounds}: {turn.name:<18} {one.alone.load.rate:8,.0f} requests/s on a core, "
                f"{one.full.load.rate:8,.0f} on all  paced p50 {one.paced.load.p50:7.2f} p99 "
                f"{one.paced.load.p99:7.2f} ms  {one.full.cpu:8.1f} µs CPU  first token "
                f"{percentile(one.first_tokens, 0.5):6.2f} ms"
            )
            found.append((turn, one))
    return found


def first_tokens(found: Sequence[tuple[Turn, Taken]]) -> dict[str, dict[str, float]]:
    """Return for each way the medians over the rounds of its streams' p50 and p99, in ms."""
    names = dict.fromkeys(turn.name for turn, _ in found)
    return {
        name: {
            "p50 ms": median(own, lambda one: percentile(one.first_tokens, 0.5)),
            "p99 ms": median(own, lambda one: percentile(one.first_tokens, 0.99)),
        }
        for name in names
        for own in [[one for turn, one in found if turn.name == name]]
    }


def added_table(title: str, figures: Mapping[str, edge.Figures]) -> Table:
    """Return latencies, and what each way adds to direct."""
    base = figures[DIRECT]
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (name, one.rate, one.p50, one.p50 - base.p50, one.p99, one.p99 - base.p99, one.cpu)
        for name, one in figures.items()
    )
    columns = ("way", "requests/s", "p50 ms", "added", "p99 ms", "added", "CPU µs/request")
    return Table(title=title, columns=columns, rows=rows)


def judged(
    alone: Mapping[str, edge.Figures],
    full: Mapping[str, edge.Figures],
    paced: Mapping[str, edge.Figures],
    tokens: Mapping[str, Mapping[str, float]],
) -> dict[str, float]:
    """Return what the goals are about, by their names."""
    return {
        "added p50 ms": paced[OURS].p50 - paced[DIRECT].p50,
        "added p99 ms": paced[OURS].p99 - paced[DIRECT].p99,
        **{
            f"requests/s of {peer}, {where}": rates[OURS].rate / rates[peer].rate
            for where, rates in (("on a core of its own", alone), ("all on the same cores", full))
            for peer in (LITELLM_1, LITELLM_2)
        },
        "added to the first token ms": tokens[OURS]["p50 ms"] - tokens[DIRECT]["p50 ms"],
    }


def goals(found: Mapping[str, float]) -> Table:
    """Return what was wanted beside what is. Goals about multiples of a rate want more, the others less."""
    rows = []
    for name, goal in GOALS.items():
        more = name.startswith("requests/s")
        met = found[name] >= goal if more else found[name] <= goal
        rows.append(
            (name, f"{'at least' if more else 'at most'} {goal:g}", found[name], "yes" if met else "no")
        )
    return Table(title="Goals for our proxy", columns=("what", "goal", "measured", "met"), rows=tuple(rows))


def raw(found: Sequence[tuple[Turn, Taken]]) -> list[dict[str, Any]]:
    """Return every turn's figures as they were measured."""
    return [
        {
            "round": turn.round,
            "way": turn.name,
            **{
                f"{kind} {name}": value
                for kind, one in (
                    ("alone", taken.alone),
                    ("full", taken.full),
                    ("paced", taken.paced),
                    ("gentle", taken.gentle),
                )
                for name, value in (
                    ("requests/s", one.load.rate),
                    ("p50 ms", one.load.p50),
                    ("p99 ms", one.load.p99),
                    ("CPU µs", one.cpu),
                )
            },
            "first token p50 ms": percentile(taken.first_tokens, 0.5),
            "first token p99 ms": percentile(taken.first_tokens, 0.99),
        }
        for turn, taken in found
    ]


def litellm_version() -> str:
    """Return the pinned version of LiteLLM."""
    lines = (LITELLM_DIRECTORY / "requirements.in").read_text(encoding="utf-8").splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith("litellm"))


def run(command: str, *, rounds: int, seconds: int) -> Report:
    """Measure, and return the report."""
    facts = machine.facts({"litellm": litellm_version()})
    found = measure(rounds=rounds, seconds=seconds)
    alone = edge.medians([(turn, one.alone) for turn, one in found])
    full = edge.medians([(turn, one.full) for turn, one in found])
    paced = edge.medians([(turn, one.paced) for turn, one in found])
    gentle = edge.medians([(turn, one.gentle) for turn, one in found])
    tokens = first_tokens(found)
    what = judged(alone, full, paced, tokens)
    base = tokens[DIRECT]["p50 ms"]
    return Report(
        name="llm",
        title="A chat through our proxy, through LiteLLM, and directly",
        command=command,
        machine=facts,
        parameters={
            "rounds": rounds,
            "seconds": seconds,
            "connections": CONNECTIONS,
            "wrk threads": THREADS,
            "workers of our nginx": 2,
            "body bytes": len(chat()),
            "streams": STREAM,
        },
        tables=(
            goals(what),
            added_table("As fast as it goes, on a core of its own", alone),
            added_table("As fast as it goes, all on the same cores", full),
            added_table(f"Paced: each connection rests {PACED} ms", paced),
            added_table(f"Gentle: each connection rests {GENTLE} ms", gentle),
            Table(
                title="Time to the first token of a stream",
                columns=("way", "p50 ms", "added", "p99 ms"),
                rows=tuple(
                    (name, one["p50 ms"], one["p50 ms"] - base, one["p99 ms"]) for name, one in tokens.items()
                ),
            ),
        ),
        notes=NOTES,
        raw=raw(found),
        summary={
            "goals": what,
            **{
                name: {
                    "alone": vars(alone[name]),
                    "full": vars(full[name]),
                    "paced": vars(paced[name]),
                    "gentle": vars(gentle[name]),
                    "first token": tokens[name],
                }
                for name in full
            },
        },
    )
