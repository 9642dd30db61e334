"""A service that listens before it can answer: requests get Retry-After, and a slow service is not cut off."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.stacks import wait_until
from tests.integration.edge import slow_starter
from tests.integration.edge.container import ALLOWED, Edge

# What the docs promise.
SOON = 5.0
# Longer than any request with Retry-After may take, and than the edge needs to notice anything.
LONG = 60.0


class SlowEdge(Edge):
    """An edge whose upstream answers only after a signal."""

    program = Path(slow_starter.__file__)

    def ready(self) -> None:
        """Let the upstream answer."""
        assert self.upstream.exec_run(["touch", str(slow_starter.READY)]).exit_code == 0

    def hang(self) -> None:
        """Let the running upstream answer nothing, as one that is too busy."""
        assert self.upstream.exec_run(["rm", str(slow_starter.READY)]).exit_code == 0

    def ask(self, path: str = "/v1/info") -> tuple[httpx.Response, float]:
        """Return an answer and how long it took; status 0 for none within `LONG`."""
        began = time.monotonic()
        answer = httpx.get(f"{self.url}{path}", headers={"Origin": ALLOWED}, timeout=LONG)
        return answer, time.monotonic() - began

    def eventually(self, status: int) -> None:
        """Wait until requests are answered with `status`."""
        wait_until(lambda: self.status_now() == status, seconds=LONG, what=f"{status}")

    def status_now(self) -> int:
        """Return the status of one request, 0 when it waits."""
        try:
            return httpx.get(f"{self.url}/v1/info", timeout=SOON).status_code
        except httpx.TimeoutException:
            return 0


@pytest.fixture(scope="module")
def edge(open_directory: Callable[[], Path]) -> Iterator[SlowEdge]:
    """One edge; each test leaves its upstream ready."""
    one = SlowEdge(open_directory())
    try:
        yield one
    finally:
        one.remove()


def assert_come_again(answer: httpx.Response, seconds: float) -> None:
    """Demand the answer that the docs promise while api starts."""
    assert answer.status_code == 503, answer.text
    assert seconds < SOON
    assert answer.headers["retry-after"] == "5"
    assert answer.headers["access-control-allow-origin"] == ALLOWED
    assert answer.json()["code"] == "service_unavailable"


def test_an_edge_that_is_new_notices_a_service_that_has_not_answered_yet(edge: SlowEdge) -> None:
    edge.eventually(503)

    for path in ("/v1/info", "/console/api/setup", "/api/site", "/files/one"):
        assert_come_again(*edge.ask(path))
    assert httpx.get(f"{edge.url}/e/200", timeout=SOON).status_code == 200, "other services are reached"

    edge.ready()
    edge.eventually(200)


def test_a_service_that_restarts_costs_no_request_its_time(edge: SlowEdge) -> None:
    edge.ready()
    edge.eventually(200)

    edge.upstream.restart(timeout=0)
    edge.eventually(503)
    # From here on it listens, and answers nothing.
    assert edge.upstream.exec_run(["python3", "-c", _CONNECTS]).exit_code == 0
    for _ in range(10):
        assert_come_again(*edge.ask())
        time.sleep(0.5)

    edge.ready()
    edge.eventually(200)


_CONNECTS = f"""
import socket, time
deadline = time.monotonic() + {LONG}
while socket.socket().connect_ex(("127.0.0.1", {slow_starter.PORTS[0]})):
    assert time.monotonic() < deadline
    time.sleep(0.1)
"""


def test_a_busy_service_is_not_cut_off(edge: SlowEdge) -> None:
    edge.ready()
    edge.eventually(200)

    edge.hang()
    with ThreadPoolExecutor(3) as pool:
        waiting: list[Any] = [pool.submit(edge.ask)]
        # More than ten questions of the edge's own stay without an answer.
        time.sleep(12)
        waiting += [pool.submit(edge.ask) for _ in range(2)]
        time.sleep(3)
        early = [one for one in waiting if one.done()]
        edge.ready()
        answers = [one.result()[0].status_code for one in waiting]

    assert early == []
    assert answers == [200] * 3
