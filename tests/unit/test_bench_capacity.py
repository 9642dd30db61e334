"""The capacity model: what is fitted, what follows from it, and the page that plans with it."""

from pathlib import Path

import crossplane
import pytest

from bench import machine
from bench.capacity import bench, planning
from bench.capacity.measuring import (
    CORES,
    EDGE_TOKEN,
    EDGES,
    INTROSPECTION,
    ISSUE,
    PARTS,
    context,
    edges,
    groups,
)
from bench.capacity.model import BUSY, FITTED, Demand, fitted, slots
from bench.capacity.replicas import Group, Taken
from bench.report import RESULTS, markdown, table_lines
from bench.rounds import Turn
from infra.catalogue.project import ROOT, declared
from infra.edge.paths import NGINX_CONFIG
from tests.unit.test_render import walk

RING = f"{NGINX_CONFIG.rpartition('/')[0]}/http/ring.conf"
CONNECTIONS = int(declared()["apiWorkerConnections"]["default"])


def turns(*rounds: tuple[str, int, float, float]) -> list[tuple[Turn, Group, Taken]]:
    """Return turns of (part, replicas, requests/s, CPU µs)."""
    return [
        (
            Turn(round=number, name=part),
            Group(part=part, urls={f"r{one}": "" for one in range(count)}, headers={}, script=""),
            Taken(rate=rate, cpu=cpu),
        )
        for number, (part, count, rate, cpu) in enumerate(rounds, 1)
    ]


def committed() -> dict[str, Demand]:
    """Return the models of the committed results."""
    text = (RESULTS / "capacity.md").read_text(encoding="utf-8")
    section = text.split("## The model")[1].split("##")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    return {
        part: Demand(alone=number(alone), several=number(several), remote=number(remote))
        for part, alone, several, remote in rows[2:]
    }


def number(cell: str) -> float:
    return float(cell.replace(",", ""))


def test_the_model_goes_through_what_it_is_fitted_to() -> None:
    law = Demand(alone=30, several=80, remote=40)

    found = fitted({count: [law.of(count)] * 3 for count in FITTED}, joined=True)

    assert [found.of(count) for count in (1, 2, 3, 5)] == pytest.approx(
        [law.of(count) for count in (1, 2, 3, 5)]
    )


def test_a_noisy_round_does_not_move_the_model() -> None:
    found = fitted({1: [30, 30, 900], 2: [100, 100, 5], 3: [110, 110, 900]}, joined=True)

    assert (found.alone, found.of(2), found.of(3)) == pytest.approx((30, 100, 110))


def test_noise_never_makes_requests_cheaper_with_more_replicas() -> None:
    found = fitted({1: [50], 2: [54], 3: [52]}, joined=True)

    assert (found.several, found.remote) == (53, 0)


def test_replicas_that_share_no_request_have_one_line() -> None:
    found = fitted({1: [100], 2: [110], 3: [120]}, joined=False)

    assert found.alone == found.several
    assert [found.of(count) for count in FITTED] == pytest.approx([99.2, 111.6, 115.7], abs=3)
    assert fitted({1: [100], 2: [90], 3: [110]}, joined=False).of(1) == pytest.approx(99, abs=2)


def test_a_model_of_what_was_not_measured_is_an_error() -> None:
    with pytest.raises(ValueError, match="with 2 replica"):
        fitted({1: [50], 2: [], 3: [52]}, joined=True)


def test_throughput_is_the_cores_divided_by_the_time_of_a_request() -> None:
    found = Demand(alone=50, several=100, remote=0)

    assert found.rate(1, 1.0) == 20_000
    assert found.rate(4, 0.5) == 20_000


def test_the_fewest_replicas_that_are_not_too_busy() -> None:
    found = Demand(alone=100, several=200, remote=0)

    assert found.least(6000, 1.0) == 1
    # Two replicas at twice the cost serve what one does.
    assert found.least(6001, 1.0) == 3
    assert found.rate(found.least(6001, 1.0), 1.0) * BUSY >= 6001


@pytest.mark.parametrize(
    ("rate", "seconds", "connections", "processes"),
    [(1, 1, 50, 1), (10, 5, 50, 2), (6, 5, 50, 1), (100, 5, 50, 17), (100, 0.3, 50, 1)],
)
def test_processes_of_the_api_by_requests_at_a_time(
    rate: float, seconds: float, connections: int, processes: int
) -> None:
    assert slots(rate, seconds, connections) == processes


def test_the_gateway_is_asked_once_for_each_token_and_replica() -> None:
    assert planning.introspections(planning.Load(rate=1000, clients=100), 2) == 50
    assert planning.introspections(planning.Load(rate=10, clients=100), 2) == 10


def test_a_plan_has_two_of_each_and_grows_with_the_load() -> None:
    demands = {part: Demand(alone=50, several=200, remote=50) for part in PARTS}
    demands[INTROSPECTION] = Demand(alone=400, several=400, remote=0)
    demands[ISSUE] = Demand(alone=1000, several=1000, remote=0)

    small, large = (
        planning.plan(planning.Load(rate=rate, clients=clients), demands, connections=50)
        for rate, clients in ((10, 100), (20_000, 50_000))
    )

    assert (small.edges, small.gateways, small.api_processes) == (2, 2, 2)
    assert large.edges == demands[EDGE_TOKEN].least(20_000, 1.0)
    assert large.edge_cores <= large.edges * BUSY
    assert large.gateways > 2
    assert large.gateway_cores <= large.gateways * BUSY


def test_what_was_predicted_is_told_from_what_was_fitted() -> None:
    measured = turns(
        *((part, count, 1000.0, cpu) for part in PARTS for count, cpu in ((1, 50), (2, 90), (3, 95), (4, 99)))
    )

    table = bench.compared(measured, bench.demands(measured))

    assert [(row[1], row[2], row[5]) for row in table.rows[:4]] == [
        (1, "fitted", "+0 %"),
        (2, "fitted", "+0 %"),
        (3, "fitted", "+0 %"),
        (4, "predicted", "-2 %"),
    ]
    assert [row[4] for row in table.rows[:4]] == pytest.approx([50, 90, 95, 97.5])
    assert table.rows[0][7] == pytest.approx(CORES[EDGE_TOKEN] * 1_000_000 / 50)


def test_replicas_of_one_number_count_as_one(tmp_path: Path) -> None:
    found = context()

    alone, *_ = edges(found, 1, "127.0.0.1")
    three = edges(found, 3, "127.0.0.1")

    assert [one.name for one in three] == ["edge3-0", "edge3-1", "edge3-2"]
    written = tmp_path / "ring.conf"
    written.write_text(three[0].files[RING], encoding="utf-8")
    (parsed,) = crossplane.parse(str(written), single=True, check_ctx=False)["config"]
    servers = [
        line["args"][0]
        for inside, line in walk(parsed["parsed"])
        if line["directive"] == "server" and inside == ("upstream",)
    ]
    assert [server.partition(":")[0] for server in servers][:3] == [one.name for one in three]
    assert RING not in alone.files


def test_every_part_is_measured_with_more_replicas_than_the_model_is_fitted_to() -> None:
    found = context()

    made = groups(
        {count: edges(found, count, "127.0.0.1") for count in EDGES}, [f"gateway-{one}" for one in range(4)]
    )

    for part in PARTS:
        counts = [group.count for group in made.values() if group.part == part]
        assert counts == sorted(counts)
        assert {*FITTED, max(FITTED) + 1} <= set(counts)


def test_a_report_has_the_model_and_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = turns(
        *((part, count, 1000.0, cpu) for part in PARTS for count, cpu in ((1, 50), (2, 90), (3, 95)))
    )
    monkeypatch.setattr(bench, "measure", lambda **_: measured)
    monkeypatch.setattr(machine, "facts", lambda: {"cores": "2"})

    found = bench.run("python -m bench capacity", rounds=1, seconds=1)
    (tmp_path / "capacity.md").write_text(markdown(found, "2026-01-01"), encoding="utf-8")
    monkeypatch.setattr("tests.unit.test_bench_capacity.RESULTS", tmp_path)

    shown, models = committed(), bench.demands(measured)
    assert shown.keys() == models.keys()
    for part, one in models.items():
        # Three digits are shown.
        assert vars(shown[part]) == pytest.approx(vars(one), rel=0.01, abs=0.01)


def test_the_page_plans_with_the_committed_model() -> None:
    page = (ROOT / "docs" / "guides" / "capacity.md").read_text(encoding="utf-8")

    found = planning.table(committed(), connections=CONNECTIONS)

    lines = [line for line in table_lines(found) if line.startswith("|")]
    assert [line for line in page.splitlines() if line in lines] == lines
