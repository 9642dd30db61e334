"""Metrics of the edge's traffic: a request is counted once, across reloads too, and nothing of a client is shown."""

import re
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dify_kit.containers.docker_host import Container
from dify_kit.watch import traffic
from infra.catalogue import ports
from infra.catalogue.services import NGINX
from infra.edge.paths import AFTER_RELOAD_SECONDS, DRAIN, DRAIN_MARK, EDGE_DIRECTORY
from infra.edge.traffic import LOGS
from support.gateway import SECRET
from tests.integration.edge.container import Edge
from tests.integration.edge.oauth import OAuthEdge
from tests.integration.edge.replicas import COUNT, Replicas

URL = f"http://127.0.0.1:{ports.EDGE_STATUS}/metrics"
# A line is written after a second and counted after half of one, on a machine that is busy.
COUNTED_SECONDS = 30
# Two turns of the logs, and as long again.
EMPTIED_SECONDS = 30
RELOAD_SECONDS = 60
# The state of a socket in /proc/net/tcp.
LISTENING = "0A"
ANSWERS: Mapping[str, str] = {
    "200": "2xx",
    "204": "2xx",
    "302": "3xx",
    "401": "401",
    "404": "4xx",
    "429": "429",
    "500": "5xx",
    "502": "502",
    "503": "503",
    "504": "504",
}


class Metrics:
    """The samples of one moment, of one nginx or the sum of several."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.samples: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for text in texts:
            for family in text_string_to_metric_families(text):
                for one in family.samples:
                    name = one.name.removeprefix("dify_kit_edge_")
                    self.samples[(name, *one.labels.values())] += one.value

    def of(self, name: str, *labels: str) -> float:
        """Return a sample, 0 where there is none."""
        return self.samples.get((name, *labels), 0.0)

    def by_status(self, group: str, name: str = "requests_total") -> dict[str, float]:
        """Return a group's counts that are not 0, by the last label."""
        return {
            key[2]: value for key, value in self.samples.items() if key[:2] == (name, group) and value != 0
        }

    @property
    def total(self) -> float:
        """All requests."""
        return sum(value for key, value in self.samples.items() if key[0] == "requests_total")


def metrics(*containers: Any) -> Metrics:
    """Return what the nginx of containers counted."""
    texts = []
    for container in containers:
        code, output = container.exec_run(["curl", "-fsS", "--max-time", "20", URL])
        assert code == 0, output.decode()
        texts.append(output.decode())
    return Metrics(texts)


def counted(wanted: float, *containers: Any) -> Metrics:
    """Return the metrics once `wanted` requests were counted. The lines of a second may still be in memory."""
    deadline = time.monotonic() + COUNTED_SECONDS
    while (found := metrics(*containers)).total < wanted and time.monotonic() < deadline:
        time.sleep(0.2)
    assert found.total == wanted, f"{found.total} of {wanted} requests were counted in {COUNTED_SECONDS} s"
    return found


def settled(*containers: Any) -> Metrics:
    """Return the metrics once no request has been counted for longer than a line stays in memory."""
    deadline = time.monotonic() + COUNTED_SECONDS
    last, since = metrics(*containers), time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(0.5)
        found = metrics(*containers)
        if found.total != last.total:
            last, since = found, time.monotonic()
        elif time.monotonic() - since > 3:
            return found
    raise AssertionError(f"requests are still counted after {COUNTED_SECONDS} s: {last.total}")


def reload(edge: Edge) -> None:
    """Let nginx take its configuration again, as `up` does."""
    script = (
        f"{DRAIN}; nginx -e stderr -s reload -c {EDGE_DIRECTORY}/nginx.conf; "
        f"sleep {AFTER_RELOAD_SECONDS}; rm {DRAIN_MARK}"
    )
    code, output = edge.nginx.exec_run(["sh", "-c", script])
    assert code == 0, output.decode()


@pytest.fixture(scope="module")
def own(start_edge: Callable[..., Edge]) -> Edge:
    """An edge of this module, with limits on two route groups."""
    limits = {
        "v1": {"requests": 0, "concurrent": 0, "addressRequests": 0, "addressConcurrent": 0},
        "openapi": {"requests": 5, "seconds": 60, "concurrent": 0, "addressConcurrent": 0},
        "files": {"requests": 0, "concurrent": 2},
    }
    return start_edge(plain={"rateLimits": limits})


def test_each_request_of_each_status_is_counted_once(own: Edge) -> None:
    before = settled(own.nginx)
    wanted = {path: 3 + number for number, path in enumerate(ANSWERS)}
    paths = [path for path, times in wanted.items() for _ in range(times)]

    with ThreadPoolExecutor(8) as pool:
        sent = list(pool.map(lambda path: own.http.get(f"/v1/{path}?secret=of-a-client"), paths))
    after = counted(before.total + len(paths), own.nginx)

    expected: Counter[str] = Counter()
    for path, times in wanted.items():
        expected[ANSWERS[path]] += times
    assert after.by_status("v1") == expected
    assert after.of("request_duration_seconds_count", "v1") == len(paths)
    assert after.of("request_duration_seconds_bucket", "v1", "+Inf") == len(paths)
    assert after.of("upstream_header_seconds_count", "v1") == len(paths)
    # Their answers were the service's own.
    assert after.by_status("v1", "upstream_failures_total") == {
        status: expected[status] for status in ("502", "503", "504", "5xx")
    }
    assert after.by_status("v1", "limited_requests_total") == {}
    bodies = sum(len(one.content) for one in sent)
    assert bodies < after.of("sent_bytes_total", "v1") < bodies + 2000 * len(paths)
    assert 60 * len(paths) < after.of("received_bytes_total", "v1") < 1000 * len(paths)
    assert after.of("recent_requests", "503") >= expected["503"]


def test_other_groups_have_counters_of_their_own_that_begin_at_zero(own: Edge) -> None:
    before = settled(own.nginx)

    own.http.get("/console/api/200")
    own.http.get("/apps")

    after = counted(before.total + 2, own.nginx)
    assert after.of("requests_total", "console", "2xx") == before.of("requests_total", "console", "2xx") + 1
    assert after.of("requests_total", "web", "2xx") == before.of("requests_total", "web", "2xx") + 1
    assert ("requests_total", "mcp", "5xx") in after.samples
    assert after.of("requests_total", "mcp", "5xx") == 0


def test_a_refusal_by_a_limit_names_the_kind_of_limit(own: Edge) -> None:
    before = settled(own.nginx)
    headers = {"Authorization": "Bearer app-aaaaaaaaaaaaaaaaaaaaaaaa"}

    rate = [own.http.get("/openapi/200", headers=headers).status_code for _ in range(8)]
    with ThreadPoolExecutor(6) as pool:
        several = list(pool.map(lambda _: own.http.get("/files/hold").status_code, range(6)))

    assert Counter(rate) == {200: 5, 429: 3}
    refused = several.count(429)
    assert refused >= 1
    after = counted(before.total + 14, own.nginx)
    assert after.by_status("openapi", "limited_requests_total") == {"rate": 3}
    assert after.by_status("files", "limited_requests_total") == {"concurrency": refused}
    assert after.by_status("openapi") == {"2xx": 5, "429": 3}


def test_a_client_that_leaves_is_counted_as_499(own: Edge) -> None:
    before = settled(own.nginx)

    with socket.create_connection(("127.0.0.1", own.port_number), timeout=10) as stream:
        stream.sendall(b"GET /v1/slow HTTP/1.1\r\nHost: dify.test\r\n\r\n")
        time.sleep(0.5)

    after = counted(before.total + 1, own.nginx)
    assert after.of("requests_total", "v1", "499") == before.of("requests_total", "v1", "499") + 1


def test_a_stream_is_counted_once_at_its_end(own: Edge) -> None:
    before = settled(own.nginx)

    with own.http.stream("GET", "/v1/hold") as answer:
        lines = answer.iter_lines()
        next(lines)
        during = metrics(own.nginx)
        events = 1 + sum(line.startswith("data:") for line in lines)

    assert events == 30
    assert during.total == before.total
    assert during.of("connections", "writing") >= 1
    after = counted(before.total + 1, own.nginx)

    def longer(name: str, bound: str) -> float:
        def many(found: Metrics) -> float:
            return found.of(f"{name}_count", "v1") - found.of(f"{name}_bucket", "v1", bound)

        return many(after) - many(before)

    # It lasts 3 s, and began long before that.
    assert longer("request_duration_seconds", "2.5") == 1
    assert longer("upstream_header_seconds", "2.5") == 0


def test_reloads_lose_none(own: Edge) -> None:
    before = settled(own.nginx)
    answered: Counter[int] = Counter()
    running = True

    def ask() -> Counter[int]:
        found: Counter[int] = Counter()
        # A connection for each request: a reload closes idle ones, and a request on one would have to be sent again.
        with httpx.Client(base_url=own.url, headers={"Connection": "close"}, timeout=30) as client:
            while running:
                found[client.get("/v1/200").status_code] += 1
        return found

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        try:
            for _ in range(2):
                reload(own)
        finally:
            running = False
        for one in asking:
            answered += one.result(timeout=RELOAD_SECONDS)

    assert set(answered) == {200}
    assert answered.total() > 20
    after = counted(before.total + answered.total(), own.nginx)
    assert (
        after.of("requests_total", "v1", "2xx") - before.of("requests_total", "v1", "2xx") == answered.total()
    )
    assert after.of("start_timestamp_seconds") == before.of("start_timestamp_seconds")


def test_the_logs_are_emptied_and_the_counts_stay(own: Edge) -> None:
    before = settled(own.nginx)
    sizes = ["sh", "-c", f"cat {' '.join(log.path for log in LOGS)} | wc -c"]
    for _ in range(20):
        own.http.get("/v1/200")
    counted(before.total + 20, own.nginx)
    left = ""
    deadline = time.monotonic() + EMPTIED_SECONDS
    while time.monotonic() < deadline and left != "0":
        left = own.nginx.exec_run(sizes).output.decode().strip()
        time.sleep(0.5)

    assert left == "0", f"{left} bytes are left after {EMPTIED_SECONDS} s"
    assert metrics(own.nginx).total == before.total + 20


def test_nothing_of_a_client_is_in_the_metrics_and_the_port_is_inside(own: Edge) -> None:
    before = settled(own.nginx)
    mark = "mark-of-a-client"
    headers = {"Authorization": f"Bearer {mark}", "User-Agent": mark, "Origin": f"https://{mark}.example"}

    own.http.get(f"/v1/{mark}|200|rate%0a?{mark}", headers=headers)
    own.raw(f"GET /v1/{mark} HTTP/1.1\r\nHost: {mark}\r\nConnection: close\r\n\r\n".encode())
    through = own.http.get("/metrics")

    after = counted(before.total + 2, own.nginx)
    (text,) = after.texts
    assert mark not in text
    assert not re.search(r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", text)
    # From outside the path is one of Dify's pages.
    assert through.json()["path"] == "/metrics"
    _, listening = own.nginx.exec_run(["sh", "-c", "cat /proc/net/tcp /proc/net/tcp6"])
    fields = [line.split() for line in listening.decode().splitlines()]
    here = [one[1] for one in fields if one[1].endswith(f":{ports.EDGE_STATUS:04X}") and one[3] == LISTENING]
    assert here == [f"0100007F:{ports.EDGE_STATUS:04X}"]


def test_the_kit_reads_what_nginx_counted_in_its_container(own: Edge) -> None:
    settled(own.nginx)
    here = Container(id=own.nginx.id, name="dify-dev-nginx", service=NGINX, job=False, state="running")

    scraped = traffic.scrape({NGINX: [here]}, "dev")
    found = traffic.traffic(scraped)

    assert found is not None
    assert found.total.requests == metrics(own.nginx).total > 0
    assert 0 < found.seconds <= 300
    (family,) = [one for one in traffic.families(scraped, "dev") if one.name == "dify_kit_edge_requests"]
    assert {(one.labels["stack"], one.labels["replica"]) for one in family.samples} == {("dev", here.name)}


def test_a_dry_run_counts_what_it_would_refuse_also_without_an_access_log(
    start_edge: Callable[..., Edge],
) -> None:
    limits = {"dryRun": True, "v1": {"requests": 2, "seconds": 60, "concurrent": 0}}
    dry = start_edge(plain={"rateLimits": limits, "accessLog": "off"})
    before = settled(dry.nginx)
    headers = {"Authorization": "Bearer app-aaaaaaaaaaaaaaaaaaaaaaaa"}

    assert [dry.http.get("/v1/200", headers=headers).status_code for _ in range(5)] == [200] * 5

    after = counted(before.total + 5, dry.nginx)
    assert after.by_status("v1", "limited_requests_total") == {"rate_dry_run": 3}
    assert after.by_status("v1") == {"2xx": 5}
    assert dry.nginx.logs(stderr=False) == b""


def test_a_service_that_is_gone_is_a_failure_of_the_upstream(start_edge: Callable[..., Edge]) -> None:
    alone = start_edge()
    before = settled(alone.nginx)
    alone.upstream.kill()

    status = alone.http.get("/files/200").status_code

    assert status in {503, 504}
    after = counted(before.total + 1, alone.nginx)
    assert after.by_status("files") == {str(status): 1}
    # Its name may be gone, too, and then nginx has no address to try.
    (found,) = after.by_status("files", "upstream_failures_total").items()
    assert found in {("502", 1), ("504", 1)}


def test_a_worker_that_is_killed_takes_no_count_with_it(own: Edge) -> None:
    before = settled(own.nginx)
    had = before.of("requests_total", "v1", "2xx")
    workers = (
        "for p in /proc/[0-9]*; do grep -aq 'worker process' $p/cmdline && kill -9 ${p#/proc/}; done; true"
    )
    own.nginx.exec_run(["sh", "-c", workers])
    own.http.close()
    own.http = httpx.Client(base_url=own.url, timeout=20)
    own.wait()
    own.http.get("/v1/200")

    deadline = time.monotonic() + COUNTED_SECONDS
    found = 0.0
    while found != had + 1 and time.monotonic() < deadline:
        with suppress(AssertionError):
            found = metrics(own.nginx).of("requests_total", "v1", "2xx")
        time.sleep(0.2)
    assert found == had + 1, f"{found} instead of {had + 1} requests were counted in {COUNTED_SECONDS} s"


def test_calls_of_the_gateway_are_counted_by_kind(oauth: OAuthEdge) -> None:
    nginx = oauth.edge.nginx
    before = settled(nginx)
    form = {
        "grant_type": "client_credentials",
        "client_id": "acme-app",
        "client_secret": SECRET,
        "scope": "chat",
    }
    wrong = {**form, "client_secret": "wrong"}

    issued = oauth.http.post("/oauth/token", data=form)
    refused = oauth.http.post("/oauth/token", data=wrong)
    assert (issued.status_code, refused.status_code) == (200, 401)
    asked = [oauth.ask_once(issued.json()["access_token"]).status_code for _ in range(3)]

    after = counted(before.total + 5, nginx)

    def more(name: str, *labels: str) -> float:
        return after.of(name, *labels) - before.of(name, *labels)

    assert more("gateway_calls_total", "token", "2xx") == 1
    assert more("gateway_calls_total", "token", "401") == 1
    assert more("requests_total", "oauth", "2xx") == 1
    assert set(asked) <= {200, 503}
    answered = more("gateway_calls_total", "introspection", "2xx")
    # nginx keeps a result for some seconds.
    assert 1 <= answered <= len(asked)


def test_each_replica_counts_the_requests_of_its_clients_once(open_directory: Callable[[], Path]) -> None:
    replicas = Replicas(open_directory())
    try:
        before = settled(*replicas.replicas)
        each = [metrics(one).total for one in replicas.replicas]
        headers = {"Authorization": "Bearer app-aaaaaaaaaaaaaaaaaaaaaaaa"}

        assert replicas.spread("/v1/200", headers, 4 * COUNT) == [200] * 4 * COUNT

        after = counted(before.total + 4 * COUNT, *replicas.replicas)
        assert after.by_status("v1") == {"2xx": 4 * COUNT}
        assert [metrics(one).total - had for one, had in zip(replicas.replicas, each, strict=True)] == [
            4
        ] * COUNT
    finally:
        replicas.remove()
