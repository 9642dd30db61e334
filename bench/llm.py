"""bench/llm: a chat through our proxy, compared with LiteLLM (one and two workers) and no proxy, on one upstream."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import edge, images, machine, proxies
from bench.llm_report import (
    DIRECT,
    GENTLE,
    LITELLM_1,
    LITELLM_2,
    NOTES,
    OURS,
    PACED,
    STREAM,
    Taken,
    added_table,
    first_tokens,
    goals,
    judged,
    raw,
)
from bench.load import CONNECTIONS, THREADS
from bench.proxies import Proxy, Request, configured
from bench.report import Report, Table
from bench.rig import Measured, Rig, rig
from bench.rounds import Turn, interleaved, percentile
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

UPSTREAM, STREAMS = "llm-upstream", "llm-streams"
STREAMS_PORT = 5002
LITELLM_PORTS: Mapping[str, int] = {LITELLM_1: 9011, LITELLM_2: 9012}
MODEL, STREAMED = "gpt-4.1", "gpt-4.1-streamed"
CHAT, UPSTREAM_CHAT = "/llm/v1/chat/completions", "/v1/chat/completions"
CERTIFICATE, KEY, CA = "/bench/upstream.pem", "/bench/upstream.key", "/bench/ca.pem"
SCRIPTS: Mapping[int, str] = {rest: f"/bench/chat-{rest}.lua" for rest in (0, PACED, GENTLE)}
GRACE_SECONDS = 60


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
