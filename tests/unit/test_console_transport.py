"""The script that sends a request from inside the api's container: bodies of both kinds arrive as they are."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from infra.resources.console_transport import API, SCRIPT, Request


@pytest.fixture
def came() -> Iterator[tuple[str, list[tuple[str | None, bytes]]]]:
    """An api that keeps the type and the body of each request, and its address."""
    kept: list[tuple[str | None, bytes]] = []

    class Api(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kept.append((self.headers.get("Content-Type"), body))
            self.send_response(201)
            self.end_headers()
            self.wfile.write(b'{"result": "success"}')

    server = HTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", kept
    server.shutdown()
    server.server_close()


def send(address: str, request: Request) -> Any:
    line = request.line().replace(API.encode(), address.encode())
    done = subprocess.run(
        [sys.executable, "-I", "-c", SCRIPT], input=line, capture_output=True, check=True, timeout=180
    )
    return json.loads(done.stdout)


def test_json_and_other_content_arrive_as_they_are(
    came: tuple[str, list[tuple[str | None, bytes]]],
) -> None:
    address, kept = came
    content = bytes(range(256)) * 4096
    kind = "multipart/form-data; boundary=b"

    made = send(address, Request(method="POST", path="/a", json_body={"text": "狐"}))
    send(address, Request(method="POST", path="/b", headers={"Content-Type": kind}, content=content))
    send(address, Request(method="POST", path="/c"))

    assert (made["status"], json.loads(made["body"])) == (201, {"result": "success"})
    assert (kept[0][0], json.loads(kept[0][1])) == ("application/json", {"text": "狐"})
    assert kept[1] == (kind, content)
    assert kept[2][1] == b""
