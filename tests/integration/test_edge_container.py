"""The rendered edge in its real image, before an upstream that behaves as badly as Dify may."""

import json
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest

from infra.edge_context import edge_context
from infra.edge_paths import EDGE_DIRECTORY, RUN_DIRECTORY
from infra.images import LOCAL_BUILDS, ROOT, local_name
from infra.releases import RELEASES
from infra.render import edge_files
from tests.unit.configuration import settings

GROUPS = {
    "v1": "/v1",
    "api": "/api",
    "console": "/console/api",
    "openapi": "/openapi",
    "files": "/files",
    "mcp": "/mcp",
    "triggers": "/triggers",
}
ALLOWED = "https://app.example.com"
ORIGINS = {
    "allowed": ALLOWED,
    "denied": "https://denied.example",
    "null": "null",
    "suffix": "https://app.example.com.evil.example",
    "prefix": "https://evil-app.example.com",
    "other port": "https://app.example.com:8443",
    "other scheme": "http://app.example.com",
    "upper case": "HTTPS://APP.EXAMPLE.COM",
    "trailing dot": "https://app.example.com.",
    "empty": "",
}
CASES = ("preflight", "200", "401", "404", "429", "500", "413", "down")
SINGLE = (
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-expose-headers",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-max-age",
    "vary",
    "x-request-id",
    "retry-after",
)

# Reflects every origin with credentials, repeats headers, and answers with the status that the path names.
UPSTREAM = """
import sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Badly(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        last = self.path.partition("?")[0].rsplit("/", 1)[-1]
        if last == "stream":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(5):
                data = b"data: {\\"sent\\": %r}\\n\\n" % time.time()
                self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(data), data))
                self.wfile.flush()
                time.sleep(0.2)
            self.wfile.write(b"0\\r\\n\\r\\n")
            return
        if last == "slow":
            time.sleep(1)
        status = int(last) if last.isdigit() else 200
        body = repr({"seen": sorted(self.headers.items()), "path": self.path, "length": length}).encode()
        self.send_response(status)
        self.send_header("Access-Control-Allow-Origin", self.headers.get("Origin", "*"))
        self.send_header("Access-Control-Allow-Credentials", "true")
        self.send_header("Vary", "Cookie, Origin")
        self.send_header("X-From-Upstream", "1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_HEAD = do_GET
    def log_message(self, *args):
        pass
ThreadingHTTPServer.request_queue_size = 128  # as a real one; five, Python's default, drop connections
for port in (5001, 5002, 3000):
    server = ThreadingHTTPServer(("0.0.0.0", port), Badly)
    threading.Thread(target=server.serve_forever).start()
"""


def image_of(role: str) -> str:
    """Return a local image, built when it is not there yet."""
    name = local_name(role)
    client = docker.from_env()
    try:
        client.images.get(name)
    except docker.errors.ImageNotFound:
        directory, target = LOCAL_BUILDS[role]
        command = ["docker", "build", "--quiet", "--tag", name]
        command += ["--target", target] if target else []
        subprocess.run([*command, str(ROOT / directory)], check=True, capture_output=True, timeout=900)
    return name


class Edge:
    """nginx with rendered files, and the upstream behind it, in a network of their own."""

    def __init__(self, directory: Path) -> None:
        self.client = docker.from_env()
        self.name = f"edge-test-{secrets.token_hex(4)}"
        self.directory = directory
        self.things: list[Any] = []
        self.network = self.client.networks.create(self.name)
        self.upstream = self.start_upstream()
        self.nginx = self._start_nginx()
        self.things += [self.nginx]
        self.nginx.reload()
        port = self.nginx.attrs["NetworkSettings"]["Ports"]["8080/tcp"][0]["HostPort"]
        self.url = f"http://localhost:{port}"
        self.http = httpx.Client(base_url=self.url, timeout=20)
        self.wait()

    def start_upstream(self) -> Any:
        """Start the upstream under the names of Dify's services."""
        container = self.client.containers.create(
            image_of("api"), entrypoint=["python3", "-c", UPSTREAM], command=[], network_mode="none"
        )
        self.client.networks.get("none").disconnect(container)
        self.network.connect(container, aliases=["api", "web", "plugin_daemon", "api_websocket"])
        container.start()
        self.things.append(container)
        return container

    def _start_nginx(self) -> Any:
        context = edge_context(
            settings(
                {
                    "cors": {group: [ALLOWED] for group in GROUPS},
                    "maxUploadMegabytes": 1,
                    "serverNames": ["dify.test"],
                }
            ),
            RELEASES["1.17.1"],
        )
        for path, text in edge_files(context).items():
            target = self.directory / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        for written in (self.directory, *self.directory.rglob("*")):
            written.chmod(0o755 if written.is_dir() else 0o644)
        return self.client.containers.run(
            image_of("nginx"),
            ["nginx", "-e", "stderr", "-c", f"{EDGE_DIRECTORY}/nginx.conf", "-g", "daemon off;"],
            user="101",
            cap_drop=["ALL"],
            read_only=True,
            tmpfs={RUN_DIRECTORY: "uid=101,mode=0700", "/tmp": ""},  # noqa: S108  # the container's own
            volumes={
                str(self.directory / EDGE_DIRECTORY.lstrip("/")): {"bind": EDGE_DIRECTORY, "mode": "ro"}
            },
            ports={"8080/tcp": ("127.0.0.1", 0)},
            network=self.name,
            detach=True,
        )

    def wait(self) -> None:
        """Wait until upstream answers through every worker: each looks its address up for itself."""
        deadline = time.monotonic() + 30
        last = "nothing"
        in_a_row = 0
        while time.monotonic() < deadline:
            try:
                last = str(self.http.get("/v1/200", headers={"Connection": "close"}).status_code)
            except httpx.TransportError as problem:
                last = repr(problem)
            in_a_row = in_a_row + 1 if last == "200" else 0
            if in_a_row == 20:
                return
            if last != "200":
                time.sleep(0.3)
        raise AssertionError(f"the edge did not come up; last: {last}; {self.nginx.logs().decode()[-2000:]}")

    def remove(self) -> None:
        """Remove everything."""
        for container in self.things:
            container.remove(force=True)
        self.network.remove()


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """The edge, for all tests of this file."""
    # Not below pytest's own directory: it is closed to others, and nginx runs as another user.
    directory = tmp_path_factory.mktemp("edge")
    for parent in (directory, *directory.parents):
        if parent.name.startswith("pytest-"):
            parent.chmod(0o755)
    one = Edge(directory)
    try:
        yield one
    finally:
        one.remove()


def ask(edge: Edge, group: str, origin: str, case: str) -> httpx.Response:
    headers = {"Origin": origin} if origin else {}
    path = GROUPS[group]
    if case == "preflight":
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        return edge.http.options(f"{path}/x", headers=headers | asked)
    if case == "413":
        limit = 51 if group == "console" else 12
        return _announce(edge, f"{path}/x", headers, (limit + 5) * 1024 * 1024)
    status = "200" if case == "down" else case
    return edge.http.get(f"{path}/{status}", headers=headers)


def _announce(edge: Edge, path: str, headers: dict[str, str], length: int) -> httpx.Response:
    """Announce a body without sending it, and return the answer."""
    host = edge.url.removeprefix("http://")
    # Only as much is read as the answer announces: nginx keeps such a connection for another five seconds.
    with closing(HTTPConnection("127.0.0.1", int(host.split(":")[1]), timeout=10)) as connection:
        connection.putrequest("POST", path, skip_host=True)
        for name, value in {"Host": host, "Content-Length": str(length), **headers}.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())


def problems(group: str, origin: str, case: str, answer: httpx.Response) -> list[str]:
    """Return what is wrong with an answer's CORS headers."""
    found = []
    expected = {"preflight": 204, "413": 413, "down": 503}.get(case) or int(case)
    if case == "preflight" and not origin:
        expected = 200
    if answer.status_code != expected:
        found.append(f"status {answer.status_code} instead of {expected}")
    allow = answer.headers.get_list("access-control-allow-origin")
    if allow != ([ALLOWED] if origin == ALLOWED else []):
        found.append(f"Access-Control-Allow-Origin {allow}")
    credentials = answer.headers.get_list("access-control-allow-credentials")
    if credentials != (["true"] if origin == ALLOWED and group in {"console", "api"} else []):
        found.append(f"Access-Control-Allow-Credentials {credentials}")
    vary = [one.strip() for one in answer.headers.get("vary", "").split(",")]
    if vary.count("Origin") != 1:
        found.append(f"Vary {vary}")
    found += [f"{name} twice" for name in SINGLE if len(answer.headers.get_list(name)) > 1]
    if case in {"413", "down"} and answer.headers.get("content-type") != "application/json":
        found.append("no JSON")
    return found


@pytest.mark.parametrize("case", CASES)
def test_cors_matrix(edge: Edge, case: str) -> None:
    if case == "down":
        edge.upstream.pause()
        edge.upstream.unpause()
        edge.upstream.stop(timeout=0)
    try:
        wrong = {
            (group, name): found
            for group in GROUPS
            for name, origin in ORIGINS.items()
            if (found := problems(group, origin, case, ask(edge, group, origin, case)))
        }
    finally:
        if case == "down":
            edge.upstream.start()
            edge.wait()

    assert wrong == {}


def test_preflight_never_reaches_upstream(edge: Edge) -> None:
    headers = {"Origin": ALLOWED, "Access-Control-Request-Method": "POST"}

    answer = edge.http.options("/v1/chat-messages", headers=headers)

    assert "x-from-upstream" not in answer.headers
    assert answer.headers["access-control-max-age"] == "7200"
    assert "x-from-upstream" in edge.http.options("/v1/200").headers


def test_own_errors_are_json_and_upstreams_pass(edge: Edge) -> None:
    passed = edge.http.get("/v1/404")
    own = _announce(edge, "/v1/x", {}, 100 * 1024 * 1024)

    assert passed.headers["x-from-upstream"] == "1"
    assert own.json() == {
        "code": "request_too_large",
        "message": "The request body is larger than this server accepts.",
        "status": 413,
    }


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /" + "a" * 70_000 + " HTTP/1.1", 414),
        ("GET / HTTP/9.9", 505),
        ("NONSENSE", 400),
        ("GET /%zz HTTP/1.1", 400),
    ],
)
def test_malformed_requests_get_json(edge: Edge, request_line: str, status: int) -> None:
    host = edge.url.removeprefix("http://")
    with socket.create_connection(("127.0.0.1", int(host.split(":")[1])), timeout=10) as stream:
        stream.sendall(f"{request_line}\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        raw = b""
        while piece := stream.recv(65536):
            raw += piece

    # A line that names no host belongs to the default server, which answers nothing.
    assert raw == b"" or raw.split()[1] == str(status).encode()


def test_client_cannot_claim_an_identity(edge: Edge) -> None:
    claimed = {
        "X-Real-IP": "1.2.3.4",
        "X-Forwarded-For": "1.2.3.4",
        "X-Forwarded-Proto": "https",
        "X-Auth-Tenant": "other",
        "Forwarded": "for=1.2.3.4",
        "Dify-Hook-Url": "https://evil.example",
    }

    seen = dict(eval(edge.http.get("/v1/200", headers=claimed).text)["seen"])  # noqa: S307  # our own upstream's repr

    assert "1.2.3.4" not in json.dumps(seen)
    assert seen["X-Forwarded-Proto"] == "http"
    assert not {"X-Auth-Tenant", "Forwarded", "Dify-Hook-Url"} & set(seen)


def test_plugin_endpoint_learns_its_address(edge: Edge) -> None:
    seen = dict(eval(edge.http.get("/e/hook/200?x=1").text)["seen"])  # noqa: S307  # our own upstream's repr

    assert seen["Dify-Hook-Url"] == f"{edge.url}/e/hook/200?x=1"


def test_stream_arrives_piece_by_piece(edge: Edge) -> None:
    with edge.http.stream("GET", "/v1/stream") as answer:
        arrived = [
            time.time() - json.loads(line.removeprefix("data: "))["sent"]
            for line in answer.iter_lines()
            if line.startswith("data: ")
        ]

    assert len(arrived) == 5
    # Held back until the end, the first piece would be 0.8 s old.
    assert sorted(arrived)[2] < 0.2


def test_unknown_host_gets_no_answer(edge: Edge) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(edge.url, headers={"Host": "stranger.test"})
    assert edge.http.get("/healthz", headers={"Host": "dify.test"}).json() == {"status": "ok"}


def test_recreated_upstream_is_found_at_its_new_address(edge: Edge) -> None:
    old = edge.upstream
    # A placeholder takes the old address, so that the new upstream gets another one.
    old.reload()
    address = old.attrs["NetworkSettings"]["Networks"][edge.name]["IPAddress"]
    old.remove(force=True)
    edge.things.remove(old)
    placeholder = edge.client.containers.create(image_of("api"), entrypoint=["sleep", "300"], command=[])
    edge.things.append(placeholder)
    edge.network.connect(placeholder, ipv4_address=None)
    placeholder.start()
    gone = edge.http.get("/v1/200")
    edge.upstream = edge.start_upstream()
    edge.upstream.reload()

    edge.wait()

    assert (gone.status_code, gone.headers["retry-after"]) == (503, "5")
    assert edge.upstream.attrs["NetworkSettings"]["Networks"][edge.name]["IPAddress"] != address


def test_many_requests_at_once_lose_none(edge: Edge) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: edge.http.get("/v1/200").status_code, range(400)))

    assert set(answers) == {200}


def test_log_is_json_without_queries_and_credentials(edge: Edge) -> None:
    secret = secrets.token_hex(8)
    edge.http.get(
        f"/v1/200?api_key={secret}",
        headers={
            "Authorization": f"Bearer {secret}",
            "Cookie": f"access_token={secret}",
            "Referer": f"http://x/?{secret}",
        },
    )
    time.sleep(0.5)

    text = edge.nginx.logs(stderr=False).decode()

    assert secret not in text
    last = json.loads(text.strip().splitlines()[-1])
    assert (last["path"], last["status"], last["group"]) == ("/v1/200", "200", "v1")
    assert {"request_id", "client", "upstream_seconds"} <= set(last)
