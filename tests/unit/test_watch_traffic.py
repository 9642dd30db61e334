"""What nginx counted, as `dify-kit metrics` and `dify-kit status` have it: read in each replica, labelled, summed."""

from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from dify_kit.containers.docker_host import Container
from dify_kit.errors import KitError
from dify_kit.stack import llm_usage
from dify_kit.watch import screen, traffic
from dify_kit.watch.metrics import StackMetrics
from dify_kit.watch.report import Rates, Status, Traffic
from infra.catalogue.route_groups import TABLE
from tests.unit.served import served

GROUPS = len(TABLE)
TEXT = """\
# HELP dify_kit_edge_requests_total Requests
# TYPE dify_kit_edge_requests_total counter
dify_kit_edge_requests_total{{group="v1",status="2xx"}} {requests}
dify_kit_edge_requests_total{{group="v1",status="499"}} 1
# HELP dify_kit_edge_recent_requests Requests
# TYPE dify_kit_edge_recent_requests gauge
dify_kit_edge_recent_requests{{status="2xx"}} {recent}
# HELP dify_kit_edge_recent_seconds Seconds
# TYPE dify_kit_edge_recent_seconds gauge
dify_kit_edge_recent_seconds {seconds}
# HELP dify_kit_edge_start_timestamp_seconds Start
# TYPE dify_kit_edge_start_timestamp_seconds gauge
dify_kit_edge_start_timestamp_seconds {since}
"""
FIRST = TEXT.format(requests=10, recent=6, seconds=280, since=1_796_000_000.5)
SECOND = TEXT.format(requests=5, recent=4, seconds=120, since=1_796_000_160)


def pod(name: str, service: str) -> Container:
    return Container(id=f"kubernetes:{name}", name=name, service=service, job=False, state="running")


def test_each_replica_is_asked_and_one_without_metrics_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(container: str, stack: str, url: str) -> str:
        asked.append((container, stack, url))
        if container.endswith("nginx-1"):
            raise KitError("gone", "")
        return f"# {container}"

    monkeypatch.setattr(llm_usage, "answer_of", answer)
    running = {
        "nginx": [pod("nginx-0", "nginx"), pod("nginx-1", "nginx")],
        "llm-edge": [pod("llm-edge-0", "llm-edge")],
        "api": [pod("api-0", "api")],
    }

    found = traffic.scrape(running, "dev")

    assert found == {"nginx-0": "# kubernetes:nginx-0", "llm-edge-0": "# kubernetes:llm-edge-0"}
    assert {one[1:] for one in asked} == {("dev", "http://127.0.0.1:8081/metrics")}
    assert len(asked) == 3


def test_all_that_nginx_serves_is_served_again_with_its_stack_and_replica() -> None:
    status = Status(stack="dev", kit="1", scraped={"nginx-0": served(), "nginx-1": served()})
    collector = StackMetrics("dev")
    collector.update(status, 1.0)
    registry = CollectorRegistry()
    registry.register(collector)

    families = list(text_string_to_metric_families(generate_latest(registry).decode()))

    names = [one.name for one in families]
    assert len(names) == len(set(names))
    shown = {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in families
        for one in family.samples
    }
    for family in text_string_to_metric_families(served()):
        assert family.type == next(one.type for one in families if one.name == family.name)
        for one in family.samples:
            for replica in ("nginx-0", "nginx-1"):
                labels = {**one.labels, "stack": "dev", "replica": replica}
                assert shown[(one.name, tuple(sorted(labels.items())))] == one.value


def test_requests_of_several_replicas_are_their_sums() -> None:
    found = traffic.traffic({"nginx-0": FIRST, "nginx-1": SECOND})

    assert found == Traffic(
        since=datetime.fromtimestamp(1_796_000_000.5, tz=UTC),
        seconds=280,
        recent=Rates(requests=10, client_errors=0, too_many=0, closed=0, server_errors=0),
        total=Rates(requests=17, client_errors=2, too_many=0, closed=2, server_errors=0),
    )


def test_statuses_are_errors_of_the_client_or_of_the_server() -> None:
    found = traffic.traffic({"nginx": served()})

    assert found is not None
    assert found.total == Rates(
        requests=3 * GROUPS, client_errors=GROUPS, too_many=GROUPS, closed=0, server_errors=GROUPS
    )


def test_the_owner_of_the_llm_counts_has_no_requests() -> None:
    only = "\n".join(line for line in served().splitlines() if "dify_kit_llm" in line) + "\n"

    assert traffic.traffic({"llm-edge-0": only}) is None
    assert traffic.traffic({}) is None


def test_the_screen_says_how_long_the_last_minutes_are() -> None:
    status = Status(stack="dev", kit="1", traffic=traffic.traffic({"nginx-0": FIRST, "nginx-1": SECOND}))
    console = Console(width=200)
    with console.capture() as captured:
        screen.show(status, console)

    shown = captured.get()
    assert "10 (0.0/s), 0 with 4xx (429: 0), 0 with 5xx in the last 4 min 40 s" in shown
    assert "17, 2 with 4xx (429: 0, 2 closed by the client), 0 with 5xx since 2026-11-30" in shown
