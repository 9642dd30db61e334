"""What the faults bench makes of what clients saw. The faults themselves need an engine: `python -m bench faults`."""

from collections import Counter
from typing import Any

import pytest

from bench import faults, report
from bench.faults import FAULTS, FROZEN_SECONDS, KILLED, WELL_AFTER, Fault, Sent
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
    assert faults.shown(failures) == text


def test_each_fault_is_of_a_service_and_a_network_that_exist() -> None:
    assert len(set(FAULTS)) == len(FAULTS)
    for fault in FAULTS:
        assert fault.service in SERVICES
        assert fault.kind in {faults.KILLED, faults.PAUSED} or (
            fault.kind in NETWORKS and fault.kind in SERVICES[fault.service].networks
        )
    assert faults.named(Fault(service="api", kind=KILLED)) == "api killed"
    assert f"{FROZEN_SECONDS:.0f} s" in faults.named(Fault(service="redis", kind="data"))


def measured(lost: int) -> dict[str, Any]:
    return {
        "fault": "api killed",
        "chats": 40,
        "chats failed": 3,
        "calls": 41,
        "calls failed": 0,
        "answers": "chat: 3 x 503",
        "seconds": 4.25,
        "slowest": 1.5,
        "lost": lost,
    }


@pytest.mark.parametrize(("lost", "problem"), [(0, ""), (2, "2 answered chat(s) are lost")])
def test_an_answer_that_is_lost_is_a_problem(lost: int, problem: str) -> None:
    found = faults.report_of("python -m bench faults", [measured(lost)], facts={"cores": "2"})

    assert found.problem == problem
    text = report.markdown(found, "2026-11-30")
    assert f"| api killed | 3 of 40 | 0 of 41 | chat: 3 x 503 | 4.25 | 1.50 | {lost} |" in text
