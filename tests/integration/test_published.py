"""A published port without a route to its container: only a probe from outside detects it, a restart repairs it."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from dify_kit.checks import published
from dify_kit.containers.docker_host import DockerEngine
from dify_kit.workspace.files import DataDir, StackFiles
from support.images import image_of
from support.ports import free_port
from support.stacks import unique

PROGRAM = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"status":"ok"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""


@pytest.fixture
def stack() -> str:
    return unique("edge").removeprefix("dify-")


@pytest.fixture
def container(stack: str) -> Iterator[tuple[Any, int]]:
    """What an edge looks like from outside, and the port of this machine that it is published at."""
    port = free_port()
    client: Any = docker.from_env()
    one = client.containers.run(
        image_of("api"),
        entrypoint=["python3", "-c", PROGRAM],
        command=[],
        name=f"dify-{stack}-nginx",
        labels={"dify-kit.stack": stack, "dify-kit.service": "nginx"},
        ports={"8080/tcp": ("127.0.0.1", port)},
        stop_signal="SIGKILL",
        detach=True,
    )
    try:
        yield one, port
    finally:
        one.remove(force=True)


def proxies(port: int) -> list[int]:
    """Return the processes that stand between a port of this machine and its container."""
    done = subprocess.run(
        ["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True, timeout=120
    ).stdout
    return [
        int(line.split()[0])
        for line in done.splitlines()
        if "docker-proxy" in line and f"-host-port {port} " in line
    ]


def test_a_port_whose_proxy_ended_is_published_again(
    container: tuple[Any, int], stack: str, tmp_path: Path
) -> None:
    one, port = container
    files = StackFiles(stack=stack, data=DataDir.locate({"DIFY_KIT_HOME": str(tmp_path)}), checkout=tmp_path)
    files.stored.parent.mkdir(parents=True)
    files.stored.write_text(f'config:\n  dify:httpPort: "{port}"\n', encoding="utf-8")
    engine = DockerEngine()
    where = published.find(files, engine)
    assert where
    deadline = time.monotonic() + 60
    while published.problem(where) and time.monotonic() < deadline:
        time.sleep(0.3)
    assert published.problem(where) == ""
    between = proxies(port)
    assert between, "this engine publishes ports without a process of its own"
    for process in between:
        os.kill(process, signal.SIGKILL)

    # Inside all is well, which is what the engine and a health check see.
    one.reload()
    assert one.status == "running"
    assert published.problem(where)

    published.ensure(files, engine, patience=2)

    assert published.problem(where) == ""
    one.reload()
    assert one.attrs["RestartCount"] == 0
    assert proxies(port)
