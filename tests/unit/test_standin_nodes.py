"""The stand-in's nodes: what they ask of sandbox and proxy, what comes of each answer, and the app that has them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
import yaml
from dify_standin import nodes
from dify_standin.graph import Graph

from infra.catalogue import ports
from infra.settings.apps import CANARIES, CANARY_NODES, app_file, known_apps
from smoke_tests.test_parts import INSIDE
from support.serving import served

HTTP = {"method": "get", "url": "http://api:5001/{{#start.path#}}", "params": "", "headers": "a: b"}
CODE = {
    "code": "def main(text: str) -> dict:\n    return {'said': text}\n",
    "variables": [{"variable": "text", "value_selector": ["start", "text"]}],
    "outputs": {"said": {"type": "string"}},
}


@dataclass
class Server:
    """What answers in the place of squid or the sandbox, and what it was asked."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str = "{}"
    url: str = ""
    asked: list[tuple[str, str, dict[str, str], str]] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The proxy and the sandbox of these tests, both at one address."""
    answers = Server()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            answers.asked.append(
                (self.command, self.path, {n.lower(): v for n, v in self.headers.items()}, sent)
            )
            self.send_response_only(answers.status)
            for name, value in answers.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answers.body)))
            self.end_headers()
            self.wfile.write(answers.body.encode())

        do_POST = do_GET  # noqa: N815  # the standard library's name

    with served(Handler) as answers.url:
        for name in ("SSRF_PROXY_HTTP_URL", "SSRF_PROXY_HTTPS_URL", "CODE_EXECUTION_ENDPOINT"):
            monkeypatch.setenv(name, answers.url)
        monkeypatch.setenv("CODE_EXECUTION_API_KEY", "key-of-the-sandbox")
        yield answers


def test_a_request_goes_through_the_proxy(server: Server) -> None:
    server.status, server.headers = 404, {"X-Version": "1.17.1"}

    found = nodes.run_http(HTTP, {"start.path": "files/x"})

    ((method, path, headers, _),) = server.asked
    assert (method, path, headers["a"]) == ("GET", "http://api:5001/files/x", "b")
    # An answer that is no success is an output like any other.
    assert (found["status_code"], found["body"], found["headers"]["x-version"]) == (404, "{}", "1.17.1")


@pytest.mark.parametrize(
    ("status", "headers", "node", "told"),
    [
        (403, {"Server": "squid/6.13"}, {}, "blocked by SSRF protection"),
        (403, {"Via": "1.1 proxy (squid/6.13)"}, {}, "blocked by SSRF protection"),
        (401, {"Server": "squid"}, {}, "blocked by SSRF protection"),
        (404, {}, {"retry_config": {"retry_enabled": True}}, "failed with status code 404"),
        (200, {}, {"url": "ftp://api"}, "should start with http://"),
        (200, {}, {"method": "brew"}, "Invalid http method"),
    ],
)
def test_what_fails_a_request(
    server: Server, status: int, headers: dict[str, str], node: dict[str, Any], told: str
) -> None:
    server.status, server.headers = status, headers

    with pytest.raises(nodes.NodeError, match=told):
        nodes.run_http({**HTTP, **node}, {})


@pytest.mark.parametrize(("status", "headers"), [(403, {"Server": "gunicorn"}), (503, {"Server": "squid"})])
def test_other_refusals_are_no_ssrf_protection(server: Server, status: int, headers: dict[str, str]) -> None:
    server.status, server.headers = status, headers

    assert nodes.run_http(HTTP, {})["status_code"] == status


def test_exceptions_of_the_environment_count_unless_one_proxy_is_for_all(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "localhost,api")
    with pytest.raises(nodes.NodeError, match="Reached maximum retries"):
        nodes.run_http(HTTP, {})
    assert server.asked == []

    monkeypatch.setenv("SSRF_PROXY_ALL_URL", server.url)
    nodes.run_http(HTTP, {"start.path": "files/x"})
    ((_, path, _, _),) = server.asked
    assert path == "http://api:5001/files/x"


def test_without_a_proxy_no_answer_comes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSRF_PROXY_HTTP_URL", "http://127.0.0.1:1")

    with pytest.raises(nodes.NodeError, match="Reached maximum retries"):
        nodes.run_http(HTTP, {})
    assert server.asked == []


def test_code_is_sent_by_the_sandboxs_contract_and_its_script_works(server: Server) -> None:
    text = "'''quotes''' and <<RESULT>> \N{SNOWMAN}"
    server.body = json.dumps(
        {"code": 0, "message": "success", "data": {"stdout": f'{nodes.RESULT}{{"said": 1}}{nodes.RESULT}'}}
    )

    nodes.run_code(CODE, {"start.text": text})

    ((method, path, headers, sent),) = server.asked
    body = json.loads(sent)
    assert (method, path, headers["x-api-key"]) == ("POST", "/v1/sandbox/run", "key-of-the-sandbox")
    assert {name: body[name] for name in ("language", "preload", "enable_network")} == {
        "language": "python3",
        "preload": "",
        "enable_network": True,
    }
    printed = subprocess.run(
        [sys.executable, "-I", "-c", body["code"]], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    inner = printed.strip().removeprefix(nodes.RESULT).removesuffix(nodes.RESULT)
    assert json.loads(inner) == {"said": text}


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (401, {"code": -401}, "likely a network issue.*401"),
        (503, {}, "service is unavailable"),
        (200, {"code": -400, "message": "no such language"}, "no such language"),
        (200, {"code": 0, "data": {"stdout": "", "error": "Traceback"}}, "Traceback"),
        (200, {"code": 0, "data": {"stdout": "nothing", "error": ""}}, "no result tag"),
        (200, {"code": 0, "data": {"stdout": "<<RESULT>>[]<<RESULT>>"}}, "must be a dict"),
        (200, {"code": 0, "data": {"stdout": "<<RESULT>>{}<<RESULT>>"}}, "Output said is missing"),
    ],
)
def test_what_fails_code(server: Server, status: int, body: dict[str, Any], told: str) -> None:
    server.status, server.body = status, json.dumps(body)

    with pytest.raises(nodes.NodeError, match=told):
        nodes.run_code(CODE, {"start.text": "x"})


def test_a_dead_sandbox_fails_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODE_EXECUTION_ENDPOINT", "http://127.0.0.1:1")

    with pytest.raises(nodes.NodeError, match="check if the sandbox service is running"):
        nodes.run_code(CODE, {})


@pytest.fixture(scope="module")
def app() -> dict[str, Any]:
    """The app whose nodes run elsewhere."""
    found: dict[str, Any] = yaml.safe_load(app_file(CANARY_NODES).read_text(encoding="utf-8"))
    return found


def test_each_choice_of_the_app_leads_to_its_node_and_an_end(app: dict[str, Any]) -> None:
    described = app["workflow"]["graph"]
    graph = Graph(described)
    start, choice = graph.path(graph.start)
    (probe,) = [one for one in start["data"]["variables"] if one["variable"] == "probe"]
    ways = {}
    for name in probe["options"]:
        case = nodes.chosen_case(choice["data"], {"start.probe": name})
        ways[name] = [node["data"]["type"] for node in graph.path(graph.following(choice["id"], case))]

    assert ways == {
        "code": ["code", "end"],
        "allowed": ["http-request", "end"],
        **{probe: ["http-request", "end"] for probe in INSIDE},
    }
    assert nodes.chosen_case(choice["data"], {"start.probe": "anything else"}) == "false"
    assert len({node["id"] for node in described["nodes"]}) == len(described["nodes"]) == 10


def test_the_app_asks_for_addresses_that_the_stack_has_and_nobody_chooses_another(
    app: dict[str, Any],
) -> None:
    requests = {
        node["id"]: node["data"]
        for node in app["workflow"]["graph"]["nodes"]
        if node["data"]["type"] == "http-request"
    }

    assert requests["allowed"]["url"].startswith(f"http://api:{ports.API}/files/")
    assert requests["private"]["url"] == f"http://api:{ports.API}/health"
    assert {probe: data["url"].split("/")[2].split(":")[0] for probe, data in requests.items()} == {
        "allowed": "api",
        **INSIDE,
    }
    for data in requests.values():
        assert "{{#" not in json.dumps(data)
        # A retry would hide nothing, and take time.
        assert data["retry_config"]["retry_enabled"] is False


def test_apps_of_the_smoke_tests_are_not_offered() -> None:
    assert not set(CANARIES) & set(known_apps())
    assert all(app_file(name).is_file() for name in CANARIES)
