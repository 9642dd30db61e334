"""What is measured: one to five replicas of the edge, one to four of the gateway, in interleaved rounds."""

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from bench import images, oauth, proxies
from bench.capacity.replicas import Group, ReplicaRig, Taken, replica_rig
from bench.edge import WARM_UP_SECONDS
from bench.proxies import Proxy
from bench.rounds import Turn, interleaved
from dify_kit.errors import KitError
from dify_kit.talk import say
from infra.catalogue import ports
from infra.catalogue.releases import RELEASES
from infra.catalogue.services import GATEWAY
from infra.edge.context import EdgeContext, edge_context
from infra.edge.paths import EDGE_DIRECTORY, NGINX_CONFIG
from infra.edge.ring import EdgeRing
from infra.services.edge import run_script
from support.gateway import SECRET

# Of a core, for each replica: so small that the load and what lies behind the replicas have enough left on two cores.
EDGE_CORES, GATEWAY_CORES = 0.15, 0.2
EDGES, GATEWAYS = (1, 2, 3, 4, 5), (1, 2, 3, 4)
KEYS_SENT, TOKENS_SENT = 1000, 100
KEYS_FILE, TOKENS_FILE, CLIENTS_FILE = (f"/bench/{name}.txt" for name in ("keys", "tokens", "clients"))
KEYS, TOKENS, CLIENTS = (f"/bench/{name}.lua" for name in ("keys", "tokens", "clients"))
FORM = "grant_type=client_credentials"
START_SECONDS = 60
# Networks of the engine: the load names a client by X-Forwarded-For, as a load balancer does.
TRUSTED = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
EDGE_KEY, EDGE_TOKEN = "edge, API key", "edge, token"
INTROSPECTION, ISSUE = "gateway, introspection", "gateway, new token"
PARTS: Mapping[str, str] = {
    EDGE_KEY: "`/v1/parameters` with 1,000 API keys from 1,000 addresses, limits by both; access log on",
    EDGE_TOKEN: (
        "the same with 100 OAuth tokens, whose introspection results are cached. All are of one tenant, whose owner is "
        "one replica: it is full first, so requests/s stay below the model's, which spreads the work evenly"
    ),
    INTROSPECTION: "what a replica of the edge asks for a token each 4 s",
    ISSUE: "`POST /oauth/token`: the client's secret is checked, and a token signed (ES256)",
}
# Replicas of the edge take part in one request; each request of the gateway has one replica.
JOINED = frozenset({EDGE_KEY, EDGE_TOKEN})
CORES: Mapping[str, float] = {
    EDGE_KEY: EDGE_CORES,
    EDGE_TOKEN: EDGE_CORES,
    INTROSPECTION: GATEWAY_CORES,
    ISSUE: GATEWAY_CORES,
}


def context() -> EdgeContext:
    """Return what the measured edge is rendered from: as the kit renders it by default, with OAuth on, one worker."""
    found = replace(proxies.edge_settings(), oauth=oauth.measured_oauth(), trusted_proxies=TRUSTED)
    return replace(edge_context(found, RELEASES[found.release]), workers="1")


def load_files() -> dict[str, str]:
    """Return the files of wrk's container: the credentials of many callers, and the scripts that send them."""
    basic = base64.b64encode(f"acme-app:{SECRET}".encode()).decode()
    return {
        KEYS_FILE: "".join(f"Bearer app-BenchBenchBench{number:08}\n" for number in range(KEYS_SENT)),
        TOKENS_FILE: "".join(f"Bearer {token}\n" for token in oauth.tokens(TOKENS_SENT)),
        CLIENTS_FILE: f"Basic {basic}\n",
        KEYS: proxies.configured("callers.lua", path=KEYS_FILE, form=""),
        TOKENS: proxies.configured("callers.lua", path=TOKENS_FILE, form=""),
        CLIENTS: proxies.configured("callers.lua", path=CLIENTS_FILE, form=FORM),
    }


def edges(found: EdgeContext, count: int, address: str) -> list[Proxy]:
    """Return so many replicas of the edge that count as one, before the upstream at ``address``."""
    names = tuple(f"edge{count}-{index}" for index in range(count))
    mine = found if count == 1 else replace(found, ring=EdgeRing(replicas=names))
    files = {
        path.replace(EDGE_DIRECTORY, str(PurePosixPath(NGINX_CONFIG).parent)): text
        for path, text in proxies.live_files(mine, address).items()
    }
    # As a pod starts: it waits for the names of all replicas first.
    proxy = replace(
        proxies.edge(mine, files), command=("sh", "-c", run_script(names)), start_seconds=START_SECONDS
    )
    return [replace(proxy, name=name) for name in names]


def start_edges(running: ReplicaRig, found: EdgeContext, count: int) -> list[Proxy]:
    """Start so many replicas of the edge and wait for them: each waits for the names of the others."""
    wanted = edges(found, count, running.address())
    for proxy in wanted:
        running.start_replica(proxy)
    for proxy in wanted:
        running.wait(proxy)
    running.share([proxy.name for proxy in wanted], EDGE_CORES)
    return wanted


def start_gateways(running: ReplicaRig, count: int) -> list[str]:
    """Start so many replicas of the gateway, with one Redis, and wait for them. Raises KitError."""
    names = [f"gateway-{index}" for index in range(count)]
    for name in names:
        running.start_service(
            name, images.of("gateway"), [], oauth.gateway_files("redis"), user=oauth.GATEWAY_USER
        )
    for name in (GATEWAY, *names):
        _wait_for_gateway(running, name)
    running.share(names, GATEWAY_CORES)
    return names


def _wait_for_gateway(running: ReplicaRig, name: str) -> None:
    ask = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-m", "3"]
    deadline = time.monotonic() + START_SECONDS
    while (
        done := running.run("edge1-0", [*ask, f"http://{name}:{ports.GATEWAY_INTERNAL}/healthz"])
    ).stdout != "200":
        if time.monotonic() > deadline:
            raise KitError(f"{name} does not answer: {done.stdout} {done.stderr.strip()}")
        time.sleep(0.3)


def groups(of_edges: Mapping[int, Sequence[Proxy]], gateways: Sequence[str]) -> dict[str, Group]:
    """Return what takes turns, by name: a part and a number of replicas."""
    found = []
    for replicas in of_edges.values():
        request = replicas[0].request
        urls = {one.name: f"http://{one.name}:{one.port}{request.path}" for one in replicas}
        headers = {"Host": request.host, "Origin": proxies.ORIGIN}
        found += [
            Group(part=EDGE_KEY, urls=urls, headers=headers, script=KEYS),
            Group(part=EDGE_TOKEN, urls=urls, headers=headers, script=TOKENS),
        ]
    for count in GATEWAYS[: len(gateways)]:
        mine = gateways[:count]
        internal = {name: f"http://{name}:{ports.GATEWAY_INTERNAL}/verify" for name in mine}
        public = {name: f"http://{name}:{ports.GATEWAY}/oauth/token" for name in mine}
        found += [
            Group(part=INTROSPECTION, urls=internal, headers={}, script=TOKENS),
            Group(part=ISSUE, urls=public, headers={}, script=CLIENTS),
        ]
    return {f"{one.part} x {one.count}": one for one in found}


def measure(
    *, rounds: int, seconds: int, most_edges: int = max(EDGES), most_gateways: int = max(GATEWAYS)
) -> list[tuple[Turn, Group, Taken]]:
    """Load all groups in turn and return every turn's figures."""
    found = context()
    turns = []
    with replica_rig("json", [*proxies.aliases(found), "redis"], load_files=load_files()) as running:
        oauth.start_redis(running, "0.0.0.0")  # noqa: S104  # of the rig's own network
        running.serve(GATEWAY, images.of("gateway"), [], oauth.gateway_files(), user=oauth.GATEWAY_USER)
        of_edges = {count: start_edges(running, found, count) for count in EDGES[:most_edges]}
        everyone = groups(of_edges, start_gateways(running, most_gateways))
        for group in everyone.values():
            running.take(group, seconds=WARM_UP_SECONDS)
        for turn in interleaved(list(everyone), rounds):
            one = running.take(everyone[turn.name], seconds=seconds)
            say(
                f"  round {turn.round} of {rounds}: {turn.name:<28} {one.rate:8,.0f} requests/s  "
                f"{one.cpu:7.1f} µs CPU"
            )
            turns.append((turn, everyone[turn.name], one))
    return turns
