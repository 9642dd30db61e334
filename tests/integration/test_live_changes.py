"""Changes of the edge under load: they go live, or not at all, and no request is lost."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from infra.edge.paths import DRAIN_MARK, EDGE_DIRECTORY
from support.stacks import Stack, settings_changed
from tests.integration.containers import printed
from tests.integration.load import steady_load

ORIGIN = "https://live.example.com"
# As long as the changes take, on any machine: it is stopped when they are through. The last one comes after 20 minutes.
PIECES, PIECE_SECONDS = 4800, 0.25
STOP_SECONDS = 120
# No measure of speed: an answer that a busy machine gives late is not lost.
ANSWER_SECONDS = 60
END = 'data: {"event":"message_end"'


def hello(stack: Stack) -> str:
    return httpx.get(f"{stack.url}/hello", timeout=ANSWER_SECONDS).text


def allowed(stack: Stack, origin: str) -> bool:
    answer = httpx.get(f"{stack.url}/v1/info", headers={"Origin": origin}, timeout=ANSWER_SECONDS)
    return answer.headers.get_list("access-control-allow-origin") == [origin]


def revisions(stack: Stack) -> list[str]:
    return sorted(printed(stack.container("nginx"), ["ls", f"{EDGE_DIRECTORY}/releases"]).split())


def triggers_zone(stack: Stack) -> str:
    """Return the line of nginx's running configuration that declares the limit of /triggers."""
    output = printed(stack.container("nginx"), ["cat", f"{EDGE_DIRECTORY}/current/http/limits.conf"])
    return "\n".join(line for line in output.splitlines() if "limit_req_zone" in line and "triggers" in line)


@dataclass(kw_only=True)
class Streamed:
    """The events of a stream so far, as lines, and what ended it before its time."""

    lines: list[str] = field(default_factory=list)
    problem: str = ""

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events as objects."""
        return [json.loads(line.removeprefix("data: ")) for line in self.lines]

    @property
    def pieces(self) -> list[str]:
        """What was said, piece by piece."""
        return [event["answer"] for event in self.events if event["event"] == "message"]


def ended(streamed: Streamed) -> bool:
    """Tell whether the end has come, wherever the release sends it."""
    return any(line.startswith(END) for line in streamed.lines)


@contextmanager
def long_stream(stack: Stack) -> Iterator[Streamed]:
    """Ask for a long answer, have its first event, and read on meanwhile; then stop it and wait for its last one."""
    key = stack.outputs(secrets_too=True)["canaryKey"]
    question = f"/stream {PIECES} {PIECE_SECONDS}"
    body = {"inputs": {}, "query": question, "user": "live", "response_mode": "streaming"}
    streamed, begun = Streamed(), threading.Event()

    def read() -> None:
        try:
            with httpx.stream(
                "POST",
                f"{stack.url}/v1/chat-messages",
                headers={"Authorization": f"Bearer {key}"},
                json=body,
                timeout=2 * ANSWER_SECONDS,
            ) as answer:
                for line in answer.iter_lines():
                    if line.startswith("data: "):
                        streamed.lines.append(line.replace('": "', '":"'))
                        begun.set()
        except httpx.HTTPError as problem:
            streamed.problem = repr(problem)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert begun.wait(2 * ANSWER_SECONDS), f"no event: {streamed.problem}"
        yield streamed
    finally:
        if streamed.lines and reader.is_alive():
            httpx.post(
                f"{stack.url}/v1/chat-messages/{streamed.events[0]['task_id']}/stop",
                headers={"Authorization": f"Bearer {key}"},
                json={"user": "live"},
                timeout=STOP_SECONDS,
            ).raise_for_status()
        reader.join(timeout=STOP_SECONDS)
    if reader.is_alive():
        worker = stack.container("worker")
        logged = worker.logs(tail=20, timestamps=True).decode(errors="replace")
        raise AssertionError(
            f"the stream stands still after {len(streamed.lines)} events; worker: {worker.attrs['State']}\n{logged}"
        )


def own_templates(directory: Path, path: str, text: str) -> str:
    """Write a template of the operator's, and return the directory for `dify:templatesDir`."""
    file = directory / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return str(directory)


def test_changes_under_load_lose_no_request_and_cut_no_stream(stack: Stack, tmp_path: Path) -> None:
    before = stack.containers()
    good = own_templates(
        tmp_path / "good", "nginx/snippets/server/hello.conf.j2", "location = /hello { return 200 hello; }\n"
    )
    broken = own_templates(
        tmp_path / "broken", "nginx/snippets/server/hello.conf.j2", "# fine\nbogus_directive on;\n"
    )
    with settings_changed(stack, {"cors.v1[1]": ORIGIN, "templatesDir": good}):
        assert set(stack.steps()) - {f"dify-{stack.name}"} == {"nginx-config"}
        with (
            steady_load(
                f"{stack.url}/v1/chat-messages",
                headers={
                    "Authorization": "Bearer app-nobody-has-this-key",
                    "Content-Type": "application/json",
                },
            ) as load,
            long_stream(stack) as stream,
        ):
            before_change = len(stream.pieces)
            stack.up()
            assert not ended(stream), "the stream is to outlive the change"
            assert allowed(stack, ORIGIN)
            assert hello(stack) == "hello"

            stack.set_config("templatesDir", broken)
            refused = stack.try_up()
            assert refused.code == 1
            assert f"{broken}/nginx/snippets/server/hello.conf.j2, line 2" in refused.output
            assert "bogus_directive" in refused.output
            assert "Traceback" not in refused.output
            assert hello(stack) == "hello", "the old configuration stays"

            stack.set_config("templatesDir", good)
            with settings_changed(stack, {"rateLimits.triggers.requests": "50"}):
                stack.up()
                assert "rate=25r/s" in triggers_zone(stack)
            assert len(stream.pieces) > before_change, "and to go on"
    stack.up()

    assert stream.problem == ""
    assert ended(stream)
    assert stream.pieces == [f"{number} " for number in range(len(stream.pieces))], "no piece is missing"
    # The edge's own limits answer the rest: no request is without an answer.
    load.assert_none_lost(reloads=2)
    assert set(load.statuses) <= {401, 429}
    assert load.statuses[401] > 1000
    assert stack.containers() == before, "nginx takes it live"
    assert not allowed(stack, ORIGIN)
    assert len(revisions(stack)) == 2
    running = stack.outputs()["edgeRevision"]
    assert [one for one in revisions(stack) if one.startswith(f"{running}-")], "with the address of api"
    assert stack.container("nginx").exec_run(["test", "-e", DRAIN_MARK]).exit_code == 1


def test_recreated_api_costs_only_503_with_retry_after(stack: Stack) -> None:
    nginx = stack.container("nginx").id
    with steady_load(
        f"{stack.url}/v1/chat-messages",
        headers={"Authorization": "Bearer app-nobody-has-this-key", "Content-Type": "application/json"},
    ) as load:
        time.sleep(2)
        stack.container("api").remove(force=True)
        stack.up()
        healthy, after = time.monotonic(), set()
        with httpx.Client(base_url=stack.url, timeout=10) as client:
            while time.monotonic() < healthy + 2:
                after.add(client.get("/v1/info").status_code)
                time.sleep(0.05)
    assert after <= {401, 429}
    assert 401 in after
    load.assert_none_lost(reloads=1)
    assert {401, 503} <= set(load.statuses) <= {401, 429, 503}
    assert load.bare_503 == 0
    assert stack.container("nginx").id == nginx
