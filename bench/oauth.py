"""bench/oauth: calls with tokens through our edge, beside API keys, bare nginx, Caddy and Traefik with one gateway."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench import edge, images, machine, peers, proxies
from bench.load import CONNECTIONS, THREADS
from bench.proxies import Proxy
from bench.report import Report, Table
from bench.rig import Measured, Rig, rig
from bench.rounds import Turn, interleaved, median
from dify_gateway.state import sealed
from dify_kit.errors import KitError
from dify_kit.talk import say
from infra.catalogue import ports
from infra.catalogue.releases import RELEASES
from infra.edge.context import EdgeContext, edge_context
from infra.settings.oauth import OAuth, Tenant
from infra.settings.rate_limits import Bucket, GroupLimits
from support.gateway import AUDIENCE, ISSUER, KID, SEAL_KEY, SIGNING_KEY, documents
from support.tokens import Forge

TOKENS = 1000
FIRST_CALLS = 50
FIRST_CALLS_ROUNDS = 3
TOKENS_FILE, SCRIPT = "/bench/tokens.txt", "/bench/tokens.lua"
PACED_SCRIPT, PACED_TOKENS_SCRIPT = "/bench/paced.lua", "/bench/paced-tokens.lua"
PACED_SCRIPTS = {"": PACED_SCRIPT, SCRIPT: PACED_TOKENS_SCRIPT}
TOKEN_SECONDS = 4 * 3600
GATEWAY_USER, REDIS_USER = "1002", "999"
START_SECONDS = 20
MEMORY_SINCE = "dify-gateway:memory-since"
UNREACHED = GroupLimits(rate=Bucket(requests=1_000_000, seconds=1, burst=1_000_000), concurrent=10_000)
FEATURES = {
    "bare": "nginx that only passes on; its call has an API key",
    "key, OAuth off": "the edge without access log, as bench/edge's `edge-quiet`; an API key",
    "key": "the edge with OAuth on; an API key",
    "token": "the edge with OAuth on; one token, whose introspection result is renewed each 4 s",
    "1000 tokens": "the same with 1,000 tokens in turn",
    "caddy": "forward_auth to the same gateway, one token; caches no introspection results, so it asks each time; logs",
    "traefik": "ForwardAuth to the same gateway, one token; likewise",
}


@dataclass(frozen=True, kw_only=True)
class Taken:
    """One turn: as many requests as go through, the same paced, and the gateway's CPU time in µs per request."""

    measured: Measured
    paced: Measured
    gateway: float


def measured_oauth() -> OAuth:
    """Return the OAuth settings of the measured edge: two tenants, whose limits are never reached."""
    return OAuth(
        issuer=ISSUER,
        audience=AUDIENCE,
        token_seconds=3600,
        tenants=tuple(Tenant(name=name, app=name, limits=UNREACHED) for name in ("acme", "globex")),
        clients={},
        issuers=(),
    )


def contexts() -> tuple[EdgeContext, EdgeContext]:
    """Return what the edge is rendered from, with OAuth and without it; neither logs, as bare nginx does not."""
    found = replace(proxies.edge_settings(), access_log="off")
    release = RELEASES[found.release]
    off = edge_context(replace(found, oauth=None), release)
    return (
        edge_context(replace(found, oauth=measured_oauth()), release),
        replace(off, http_port=proxies.QUIET_PORT, status_port=proxies.QUIET_STATUS_PORT),
    )


def tokens(count: int) -> list[str]:
    """Return tokens of one client, each for itself."""
    forge = Forge(
        issuer=ISSUER, audience=AUDIENCE, kid=KID, client="acme-app", tenant="acme", key=SIGNING_KEY
    )
    return [forge.with_claims(exp=forge.now + TOKEN_SECONDS) for _ in range(count)]


def start_redis(running: Rig, bind: str = "127.0.0.1") -> None:
    """Start the gateway's Redis beside the upstream. Raises KitError."""
    redis = ["--save", "", "--bind", bind, "--protected-mode", "no"]
    running.serve("redis", images.of("redis"), redis, {}, user=REDIS_USER, entrypoint=["redis-server"])
    # As if it had been running: tokens that are older than Redis's memory are refused.
    remembered = [
        "redis-cli",
        "set",
        MEMORY_SINCE,
        sealed(SEAL_KEY, MEMORY_SINCE, str(int(time.time()) - TOKEN_SECONDS)),
    ]
    deadline = time.monotonic() + START_SECONDS
    while (done := running.run("redis", remembered)).stdout.strip() != "OK":
        if time.monotonic() > deadline:
            raise KitError(f"Redis does not answer: {done.stderr.strip()}")
        time.sleep(0.2)


def gateway_files(redis: str = "127.0.0.1") -> dict[str, str]:
    """Return the files of a gateway, by their paths in its container."""
    files = documents()
    files["config.json"]["redis"]["url"] = f"redis://{redis}:{ports.REDIS}/0"
    return {f"/etc/dify-gateway/{name}": json.dumps(content) for name, content in files.items()}


def start_gateway(running: Rig) -> None:
    """Start Redis and the gateway. Raises KitError."""
    start_redis(running)
    running.serve("gateway", images.of("gateway"), [], gateway_files(), user=GATEWAY_USER)


def turns(on: EdgeContext, off: EdgeContext, token: str) -> dict[str, Proxy]:
    """Return what is measured, by name. Some of them are the same container with another request."""
    bearer = f"Bearer {token}"
    verify = f"gateway:{ports.GATEWAY_INTERNAL}"
    ours = proxies.edge(on)

    def asked(proxy: Proxy, **change: str) -> Proxy:
        return replace(proxy, request=replace(proxy.request, **change))

    return {
        "bare": proxies.bare(on),
        "key, OAuth off": replace(proxies.edge(off), name="edge-off"),
        "key": ours,
        "token": asked(ours, authorization=bearer),
        "1000 tokens": asked(ours, authorization=bearer, script=SCRIPT),
        "caddy": asked(proxies.caddy(on, verify=verify), authorization=bearer),
        "traefik": asked(proxies.traefik(on, verify=verify), authorization=bearer),
    }


def paced(proxy: Proxy) -> Proxy:
    """Return the proxy with the request whose sender rests before each."""
    return replace(proxy, request=replace(proxy.request, script=PACED_SCRIPTS[proxy.request.script]))


def load_files(given: Sequence[str]) -> dict[str, str]:
    """Return the files of wrk's container: the tokens to send, and the scripts."""
    one_after_another, rest = (
        (proxies.CONFIGS / name).read_text(encoding="utf-8") for name in ("tokens.lua", "paced.lua")
    )
    return {
        TOKENS_FILE: "\n".join(given) + "\n",
        SCRIPT: one_after_another,
        PACED_SCRIPT: rest,
        PACED_TOKENS_SCRIPT: one_after_another + rest,
    }


def take(running: Rig, proxy: Proxy, seconds: int) -> Taken:
    """Load a proxy twice: as much as it takes, then paced for half the time."""
    before = running.cpu_seconds("gateway")
    measured = running.load(proxy, seconds=seconds)
    used = running.cpu_seconds("gateway") - before
    return Taken(
        measured=measured,
        paced=running.load(paced(proxy), seconds=max(1, seconds // 2)),
        gateway=used * 1_000_000 / measured.load.requests,
    )


def first_calls(running: Rig, proxy: Proxy, first: int) -> list[float]:
    """Return how long calls with tokens that were never seen took, in milliseconds. Raises KitError."""
    request = proxy.request
    given = [str(proxy.port), request.host, request.path, TOKENS_FILE, str(first), str(FIRST_CALLS)]
    done = running.run("load", ["python3", "/bench/first_calls.py", *given])
    if done.returncode != 0:
        raise KitError(f"{proxy.name}: first calls: {done.stderr.strip()[-500:]}")
    found: list[float] = json.loads(done.stdout)
    return found


def measure(*, rounds: int, seconds: int) -> tuple[list[tuple[Turn, Taken]], list[float]]:
    """Load everyone in turn; return every turn's figures and the latencies of first calls at our edge."""
    on, off = contexts()
    # The first calls come first, with tokens that no load has used.
    made = tokens(TOKENS + FIRST_CALLS * FIRST_CALLS_ROUNDS)
    everyone = turns(on, off, made[-1])
    containers = {proxy.name: proxy for proxy in everyone.values()}
    found = []
    with rig(
        "json",
        list(containers.values()),
        proxies.aliases(on),
        load_files=load_files(made),
        services=start_gateway,
    ) as running:
        firsts = [
            took
            for number in range(FIRST_CALLS_ROUNDS)
            for took in first_calls(running, everyone["token"], TOKENS + number * FIRST_CALLS)
        ]
        for proxy in everyone.values():
            running.load(proxy, seconds=edge.WARM_UP_SECONDS)
        for turn in interleaved(list(everyone), rounds):
            one = take(running, everyone[turn.name], seconds)
            load = one.measured.load
            say(
                f"  round {turn.round} of {rounds}: {turn.name:<14} {load.rate:8,.0f} requests/s  "
                f"p99 {load.p99:6.2f} ms, paced {one.paced.load.p99:6.2f} ms  {one.measured.cpu:6.1f} µs CPU  "
                f"{one.gateway:6.1f} µs gateway"
            )
            found.append((turn, one))
    return found, firsts


def comparison(found: Sequence[tuple[Turn, Taken]]) -> Table:
    """Return medians and their ratios to bare nginx, with the gateway's CPU time beside the proxy's."""
    figures = edge.medians([(turn, one.measured) for turn, one in found])
    relative = edge.ratios(figures)
    gateway = {
        name: median([one for turn, one in found if turn.name == name], lambda one: one.gateway)
        for name in figures
    }
    return Table(
        title="Medians, and their ratio to bare nginx",
        columns=(
            "calls",
            "requests/s",
            "ratio",
            "p50 ms",
            "p99 ms",
            "p99 ratio",
            "CPU µs/request",
            "gateway µs/request",
        ),
        rows=tuple(
            (name, one.rate, of.rate, one.p50, one.p99, of.p99, one.cpu, gateway[name])
            for name, one in figures.items()
            for of in [relative[name]]
        ),
    )


def paced_comparison(figures: Mapping[str, edge.Figures]) -> Table:
    """Return what a call takes while no core is full."""
    relative = edge.ratios(figures)
    return Table(
        title="The same, paced: each connection rests for about 1 ms before a request",
        columns=("calls", "requests/s", "p50 ms", "p50 ratio", "p99 ms", "p99 ratio"),
        rows=tuple(
            (name, one.rate, one.p50, relative[name].p50, one.p99, relative[name].p99)
            for name, one in figures.items()
        ),
    )


def raw(found: Sequence[tuple[Turn, Taken]]) -> list[dict[str, Any]]:
    """Return every turn's figures as they were measured."""
    rows = edge.raw([(turn, one.measured) for turn, one in found])
    return [
        {
            **row,
            "gateway µs/request": one.gateway,
            "paced requests/s": one.paced.load.rate,
            "paced p50 ms": one.paced.load.p50,
            "paced p99 ms": one.paced.load.p99,
        }
        for row, (_, one) in zip(rows, found, strict=True)
    ]


def run(command: str, *, rounds: int, seconds: int) -> Report:
    """Measure, and return the report."""
    facts = machine.facts({"caddy": peers.CADDY.version, "traefik": peers.TRAEFIK.version})
    found, firsts = measure(rounds=rounds, seconds=seconds)
    figures = edge.medians([(turn, one.measured) for turn, one in found])
    rested = edge.medians([(turn, one.paced) for turn, one in found])
    relative, rested_relative = edge.ratios(figures), edge.ratios(rested)
    slowest = max(firsts)
    first = median(firsts, lambda took: took)
    return Report(
        name="oauth",
        title="Calls with tokens beside API keys, bare nginx, Caddy and Traefik",
        command=command,
        machine=facts,
        parameters={
            "rounds": rounds,
            "seconds": seconds,
            "connections": CONNECTIONS,
            "wrk threads": THREADS,
            "workers of each proxy": proxies.worker_count(contexts()[0]),
        },
        tables=(
            comparison(found),
            paced_comparison(rested),
            Table(
                title="Calls with tokens that nginx has never seen, one after another",
                columns=("calls", "median ms", "slowest ms"),
                rows=((len(firsts), first, slowest),),
            ),
        ),
        notes=tuple(f"{name}: {what}" for name, what in FEATURES.items()),
        raw=raw(found),
        summary={
            "first calls": {"median ms": first, "slowest ms": slowest},
            **{name: {"ratios": vars(relative[name]), "medians": vars(one)} for name, one in figures.items()},
            "paced": {
                name: {"ratios": vars(rested_relative[name]), "medians": vars(one)}
                for name, one in rested.items()
            },
        },
    )
