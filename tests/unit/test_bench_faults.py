"""What the faults bench makes of what clients saw. The faults themselves need an engine: `python -m bench faults`."""

from collections import Counter
from typing import Any

import pytest

from bench import report
from bench.faults import bench
from bench.faults.load import WAYS, WELL_AFTER, Sent
from bench.faults.small_volumes import MEBIBYTES
from bench.faults.strikes import CLOCK, FAULTS, FROZEN_SECONDS, Fault, Kind, named
from infra.catalogue.networks import NETWORKS
from infra.catalogue.services import SERVICES


def sent(*statuses: int, seconds: float = 0.5) -> Sent:
    return Sent(calls=[(float(at), at + seconds, status) for at, status in enumerate(statuses)])


def test_requests_that_failed_are_counted_by_status() -> None:
    assert sent(200, 503, 200, 0, 503).failures() == Counter({503: 2, 0: 1})
    assert sent(200, 200).failures() == Counter()


def test_recovery_ends_with_the_last_request_that_failed() -> None:
    assert sent(200, 503, 503, 200).recovered_after(1.0) == 1.5
    assert sent(200, 200).recovered_after(1.0) == 0.0


def test_the_slowest_answer_is_one_that_was_good() -> None:
    found = Sent(calls=[(0.0, 9.0, 504), (10.0, 12.5, 200), (13.0, 13.1, 200)])

    assert found.slowest() == 2.5
    assert sent(503).slowest() == 0.0


def test_it_is_well_after_a_row_of_good_answers() -> None:
    assert not sent(*[200] * (WELL_AFTER - 1)).well()
    assert not sent(503, *[200] * (WELL_AFTER - 1)).well()
    assert sent(503, *[200] * WELL_AFTER).well()


@pytest.mark.parametrize(
    ("failures", "text"),
    [
        ({"chat": Counter(), "OAuth": Counter()}, "none"),
        ({"chat": Counter({503: 2, 0: 1}), "OAuth": Counter()}, "chat: 1 x no answer, chat: 2 x 503"),
        ({"chat": Counter(), "OAuth": Counter({502: 3})}, "OAuth: 3 x 502"),
    ],
)
def test_failures_are_shown_by_way_and_status(failures: dict[str, Counter[int]], text: str) -> None:
    assert bench.shown(failures) == text


def test_each_fault_is_of_a_service_and_a_network_that_exist() -> None:
    assert len(set(FAULTS)) == len(FAULTS)
    for fault in FAULTS:
        assert not fault.service or fault.service in SERVICES
        if fault.kind is Kind.CUT_OFF:
            assert fault.of in NETWORKS
            assert fault.of in SERVICES[fault.service].networks


def test_each_small_volume_is_one_of_the_service_that_the_fault_is_of() -> None:
    full = {fault.of: fault.service for fault in FAULTS if fault.kind is Kind.FULL}

    assert full.keys() == MEBIBYTES.keys()
    for volume, service in full.items():
        assert volume in {mount.volume for mount in SERVICES[service].mounts}


def test_faults_have_different_names_with_their_times() -> None:
    every = (*FAULTS, *CLOCK)

    assert len({named(fault) for fault in every}) == len(every)
    assert named(Fault(kind=Kind.KILLED, service="api")) == "api killed"
    assert f"{FROZEN_SECONDS:.0f} s" in named(Fault(kind=Kind.CUT_OFF, service="redis", of="data"))


def measured(lost: str = "", uncounted: int = 0, *, may: bool = False) -> dict[str, Any]:
    return {
        "fault": "api killed",
        **dict.fromkeys(WAYS, 40),
        **{f"{way} failed": 0 for way in WAYS},
        "chats failed": 3,
        "answers": "chats: 3 x 503",
        "seconds": 4.25,
        "slowest": 1.5,
        "lost": int(lost.split(maxsplit=1)[0]) if lost else 0,
        "lost what": lost,
        "not counted": uncounted,
        "may lose counts": may,
    }


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (measured(), ""),
        (measured("2 chats"), "api killed: 2 chats lost"),
        (measured(uncounted=4), "api killed: 4 LLM calls not counted"),
        (measured(uncounted=4, may=True), ""),
    ],
)
def test_an_answer_that_is_lost_is_a_problem(found: dict[str, Any], problem: str) -> None:
    made = bench.report_of("python -m bench faults", [found], facts={"cores": "2"})

    assert made.problem == problem
    text = report.markdown(made, "2026-11-30")
    assert (
        "| api killed | 3 of 40 | 0 of 40 | 0 of 40 | 0 of 40 | 0 of 40 | chats: 3 x 503 | 4.25 | 1.50 |"
        in text
    )
