"""The rig of the benches: it measures what it says, refuses figures of refusals, and leaves nothing behind."""

import secrets
from collections.abc import Iterator
from dataclasses import replace

import docker
import pytest

from bench import edge, proxies
from bench.capacity import measuring
from bench.image.sse_client import Wanted
from bench.rig import LABEL, Rig, rig
from dify_kit.errors import KitError


def names() -> set[str]:
    """Return the containers and networks of every bench."""
    api = docker.from_env().api
    own = {"label": LABEL}
    containers = [name for one in api.containers(all=True, filters=own) for name in one["Names"]]
    return {
        name.removeprefix("/") for name in [*containers, *(one["Name"] for one in api.networks(filters=own))]
    }


@pytest.fixture(scope="module")
def running() -> Iterator[Rig]:
    """Bare nginx and the edge before the tiny upstream."""
    context = proxies.measured_context()
    with rig("json", [proxies.bare(context), proxies.edge(context)], proxies.aliases(context)) as made:
        yield made
    assert not {name for name in names() if name.startswith(made.name)}


def test_load_and_cpu_time_are_those_of_the_proxy(running: Rig) -> None:
    context = proxies.measured_context()
    proxy = proxies.edge(context)
    upstream = running.cpu_seconds("upstream")
    idle = running.cpu_seconds("bare")

    measured = running.load(proxy, seconds=1)

    assert measured.load.requests > 100
    # Between the cost of a system call and that of a script: the proxy's time, not the machine's.
    assert 1 < measured.cpu < 1000
    assert running.cpu_seconds("upstream") > upstream
    assert running.cpu_seconds("bare") - idle < 0.2


def test_figures_of_refusals_are_refused(running: Rig) -> None:
    context = proxies.measured_context()
    proxy = proxies.edge(context)
    unknown_host = replace(proxy, request=replace(proxy.request, host=f"{secrets.token_hex(4)}.example"))

    with pytest.raises(KitError, match="refused"):
        running.load(unknown_host, seconds=1)


def test_a_proxy_that_does_not_start_is_told_with_its_log_and_removed() -> None:
    context = proxies.measured_context()
    broken = replace(proxies.bare(context), files={"/bench/bare.conf": "not nginx;"})
    before = names()

    with pytest.raises(KitError, match="unknown directive"), rig("json", [broken], proxies.aliases(context)):
        pytest.fail("the rig started")

    # Another bench may run on this machine and end meanwhile; none of ours may be left.
    assert names() <= before


def test_rounds_take_turns() -> None:
    context = proxies.measured_context()

    turns = edge.measure(
        [proxies.bare(context), proxies.edge(context)],
        rounds=2,
        seconds=1,
        upstream=proxies.aliases(context),
    )

    assert [turn.name for turn, _ in turns] == ["bare", "edge", "bare", "edge"]
    assert edge.ratios(edge.medians(turns))["bare"].rate == 1


def test_streams_pass_the_edge_one_by_one() -> None:
    context = proxies.measured_context()
    proxy = proxies.edge(context)
    request = replace(proxy.request, path="/v1/chat-messages")
    wanted = {"streams": 6, "at_once": 3, "events": 4, "gap": 500, "deadline": 20}
    of_chats = {"model", "authorization", "tls"}
    assert Wanted.__annotations__.keys() == wanted.keys() | {"port", "host", "path"} | of_chats

    with rig("sse", [proxy], proxies.aliases(context)) as running:
        found = running.streams(request, proxy.port, wanted, seconds=30)

    assert [one["problem"] for one in found] == [""] * 6
    # An edge that gathered events would pass the first one on with the last, 1.5 s later.
    assert sorted(one["lags"][0] for one in found)[3] < 1_000_000


def test_replicas_serve_together_and_are_measured_by_their_own_time() -> None:
    turns = measuring.measure(rounds=1, seconds=2, most_edges=2, most_gateways=1)

    found = {turn.name: taken for turn, _, taken in turns}

    assert list(found) == [
        f"{measuring.EDGE_KEY} x 1",
        f"{measuring.EDGE_TOKEN} x 1",
        f"{measuring.EDGE_KEY} x 2",
        f"{measuring.EDGE_TOKEN} x 2",
        f"{measuring.INTROSPECTION} x 1",
        f"{measuring.ISSUE} x 1",
    ]
    # Both replicas count each request: what it takes of one alone and of two cannot be the same.
    assert found[f"{measuring.EDGE_KEY} x 2"].cpu > 1.3 * found[f"{measuring.EDGE_KEY} x 1"].cpu
    assert all(taken.rate > 0 for taken in found.values())
