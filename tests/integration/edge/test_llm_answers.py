"""Answers of the LLM proxy's upstreams: when their bytes go out, what is counted, what comes back of their headers."""

import base64
import gzip
import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.catalogue import ports
from tests.integration.edge.container import ALLOWED
from tests.integration.edge.llm import LlmEdge

CHAT = "/llm/v1/chat/completions"
MODEL = "claude-sonnet-4.5"
# As long as the upstream is silent in these tests: what is out before that was not withheld.
PAUSE = 2.0
COUNT_SECONDS = 5
USAGE = '"usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}'
ANSWER = '{"id":"a","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"}}],' + USAGE + "}"
DELTA = 'data: {"id":"a","choices":[{"index":0,"delta":{"content":"Hi"}}]}'
LAST = 'data: {"id":"a","choices":[],' + USAGE + "}"
DONE = "data: [DONE]"

Script = Sequence[tuple[float, str | bytes]]


@pytest.fixture(scope="module")
def llm(open_directory: Callable[[], Path]) -> Iterator[LlmEdge]:
    """One edge with the LLM proxy, for all tests of this file."""
    one = LlmEdge(open_directory())
    try:
        yield one
    finally:
        one.remove()


def head(status: str = "200 OK", kind: str = "application/json", *more: str) -> str:
    lines = [f"HTTP/1.1 {status}", *([f"Content-Type: {kind}"] if kind else []), "Connection: close", *more]
    return "\r\n".join(lines) + "\r\n\r\n"


def scripted(script: Script, upstream: str = "first", **more: Any) -> dict[str, Any]:
    """Return a body that lets an upstream send these bytes, each after so many seconds."""
    answers = [
        (seconds, base64.b64encode(piece.encode() if isinstance(piece, str) else piece).decode())
        for seconds, piece in script
    ]
    text = base64.b64encode(json.dumps(answers).encode()).decode()
    return {"model": MODEL, "messages": [], f"script_{upstream}": text, **more}


def whole(text: str | bytes, *more: str, status: str = "200 OK", kind: str = "application/json") -> Script:
    raw = text.encode() if isinstance(text, str) else text
    return [(0, head(status, kind, f"Content-Length: {len(raw)}", *more)), (0, raw)]


def post(llm: LlmEdge, body: dict[str, Any], caller: str = "alice", **headers: str) -> httpx.Response:
    return llm.http.post(CHAT, json=body, headers={"Authorization": f"Bearer {llm.keys[caller]}", **headers})


def numbers(llm: LlmEdge, model: str = MODEL, caller: str = "alice") -> dict[str, float]:
    months = list(json.loads(llm.status("/usage"))["months"].values())
    found = months[-1].get(f"key:{caller}", {}).get(model, {}) if months else {}
    names = ("requests", "failed", "tokens_in", "tokens_out", "cost", "estimated")
    return {name: found.get(name, 0) for name in names}


def counted(
    llm: LlmEdge, before: dict[str, float], model: str = MODEL, caller: str = "alice"
) -> dict[str, float]:
    """Wait until one more request is counted, and return what came on top."""
    deadline = time.monotonic() + COUNT_SECONDS
    while time.monotonic() < deadline:
        now = numbers(llm, model, caller)
        if now["requests"] + now["failed"] > before["requests"] + before["failed"]:
            return {name: now[name] - before[name] for name in before}
        time.sleep(0.05)
    raise AssertionError(f"nothing was counted within {COUNT_SECONDS} s")


# --- bytes go out as they come -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", [False, True], ids=["usage hidden", "usage shown"])
@pytest.mark.parametrize(
    ("kind", "first", "streamed"),
    [
        ("application/json", "\n\n\n", False),
        ("application/json", "   ", True),
        ("text/event-stream", ": keep-alive\n", True),
        ("text/event-stream", ": keep-alive", True),
        ("text/event-stream", ": OPENROUTER PROCESSING\r", True),
        ("text/event-stream", f"{DELTA}\n", True),
        ("text/event-stream", f"{DELTA}\r\r", True),
        ("text/event-stream", "event: ping\n", True),
        ("text/event-stream", "id", True),
        ("text/event-stream", "data: [DO", True),
        ("text/event-stream", 'data: {"choices":[{"index":0,"delta":{"content":"Hel', True),
        ("text/plain", f"{DELTA}\n\n", True),
        ("text/plain; charset=utf-8", "\n", True),
        ("application/octet-stream", f"{DELTA}\n\n", True),
    ],
)
def test_no_byte_waits_for_the_next(llm: LlmEdge, kind: str, first: str, streamed: bool, shown: bool) -> None:
    script = [(0.0, head(kind=kind)), (0.3, first), (PAUSE, f"\n\n{LAST}\n\n{DONE}\n\n")]
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": shown}} if streamed else {}
    headers = {"Authorization": f"Bearer {llm.keys['alice']}"}

    with llm.http.stream("POST", CHAT, json=scripted(script, **options), headers=headers) as answer:
        began = time.monotonic()
        received = b""
        for piece in answer.iter_raw():
            received += piece
            if first.encode().strip(b" ") in received and len(received) >= len(first.encode()) - 1:
                break
        took = time.monotonic() - began

    # The rest would come that much later.
    assert took < PAUSE, received


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("kind", ["text/event-stream", "text/plain", "application/json", ""])
@pytest.mark.parametrize("size", [7, 100, 100_000])
def test_usage_is_hidden_and_counted_however_it_comes(llm: LlmEdge, end: str, kind: str, size: int) -> None:
    null = DELTA[:-1] + ',"usage":null}'
    within = DELTA[:-1] + "," + USAGE.replace("11", "12") + "}"
    lines = [": hello", "", DELTA, "", null, "", within, "", LAST.replace(":7", ":9"), "", DONE, "", ""]
    raw = end.join(lines).encode()
    pieces = [(0.0 if size > 1000 else 0.002, raw[at : at + size]) for at in range(0, len(raw), size)]
    before = numbers(llm)

    answer = post(llm, scripted([(0, head(kind=kind)), *pieces], stream=True))

    assert "usage" not in answer.text
    events = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    read = [json.loads(line.removeprefix("data: ")) for line in events[:-1]]
    assert [one["choices"][0]["delta"]["content"] for one in read] == ["Hi"] * 3
    assert answer.text.startswith(": hello")
    assert answer.text.strip().endswith(DONE)
    usage = counted(llm, before)
    assert (usage["tokens_in"], usage["tokens_out"], usage["estimated"]) == (11, 9, 0)


def test_a_caller_who_asked_gets_every_byte(llm: LlmEdge) -> None:
    raw = f': a\r{DELTA}\r\n\r\n{LAST[:-1]},"big":9007199254740993,"x":1.0,"y":"\\ud800"}}\n\n{DONE}\n\n'
    for size in (5, 1000):
        pieces = [(0.001, raw[at : at + size]) for at in range(0, len(raw), size)]
        options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
        answer = post(llm, scripted([(0, head(kind="text/event-stream")), *pieces], **options))
        assert answer.text == raw


def test_numbers_beside_hidden_usage_stay_as_they_are(llm: LlmEdge) -> None:
    event = DELTA[:-1] + f',"big":9007199254740993,"x":1.0,"z":1e400,"y":"\\ud800",{USAGE},"w":-0}}'
    answer = post(
        llm, scripted([(0, head(kind="text/event-stream")), (0, f"{event}\n\n{DONE}\n\n")], stream=True)
    )

    assert '"big":9007199254740993,"x":1.0,"z":1e400,"y":"\\ud800"' in answer.text
    assert '"w":-0}' in answer.text
    assert "usage" not in answer.text


# --- usage is found where it stands ------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["front", "middle", "end"])
@pytest.mark.parametrize("size", [1000, 4096, 300_000])
def test_usage_is_found_in_a_long_answer(llm: LlmEdge, where: str, size: int) -> None:
    filler = f'"a":"{"x" * 150_000}","text":"\\"usage\\":{{\\"prompt_tokens\\":5}}"'
    members = {
        "front": [USAGE, filler],
        "middle": [filler, USAGE, filler.replace('"a"', '"b"')],
        "end": [filler, USAGE],
    }
    raw = ("{" + ",".join(members[where]) + ',"choices":[]}').encode()
    pieces = [(0.0, raw[at : at + size]) for at in range(0, len(raw), size)]
    before = numbers(llm)

    answer = post(
        llm, scripted([(0, head("200 OK", "application/json", f"Content-Length: {len(raw)}")), *pieces])
    )

    assert answer.content == raw
    usage = counted(llm, before)
    assert (usage["tokens_in"], usage["tokens_out"], usage["estimated"]) == (11, 7, 0)


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        ("123456789012345678901234567890", "7"),
        ("11", "9" * 30),
        ("99999999", "7"),
        ("11", "99999999"),
        ("1e30", "7"),
    ],
)
def test_what_no_model_can_have_used_is_not_believed(llm: LlmEdge, prompt: str, completion: str) -> None:
    usage = f'"usage":{{"prompt_tokens":{prompt},"completion_tokens":{completion}}}'
    before = numbers(llm)

    answer = post(llm, scripted(whole(ANSWER.replace(USAGE, usage))))

    assert usage in answer.text
    told = counted(llm, before)
    assert told["tokens_in"] < 10_000
    assert told["tokens_out"] < 10_000


# --- budgets -----------------------------------------------------------------------------------------------------


def drop(llm: LlmEdge, body: dict[str, Any], caller: str, seconds: float = 0.2) -> int:
    """Ask and leave after a moment. Return the status that came by then, 0 for none."""
    raw = json.dumps(body).encode()
    lines = [f"POST {CHAT} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {llm.keys[caller]}"]
    lines += [f"Content-Length: {len(raw)}", "", ""]
    with socket.create_connection(("127.0.0.1", llm.port_number), timeout=seconds) as stream:
        stream.sendall("\r\n".join(lines).encode() + raw)
        try:
            return int(stream.recv(100).split(b" ")[1])
        except TimeoutError:
            return 0


@pytest.mark.parametrize("streamed", [False, True])
def test_answers_that_are_dropped_cost_what_they_may_have_cost(llm: LlmEdge, streamed: bool) -> None:
    caller = "heidi" if streamed else "ivan"
    # No header for a while: the upstream's progress is unknown.
    silent = scripted([(5, head())], max_tokens=100_000, stream=streamed)

    statuses = [drop(llm, silent, caller) for _ in range(20)]

    # One is accepted, and has spent the budget or keeps it reserved (`tokens_out` below). On a busy machine a caller
    # may leave before nginx has read the request, which then costs nothing.
    accepted = statuses.index(429)
    assert statuses == [0] * accepted + [429] * (20 - accepted)
    assert 1 <= accepted <= 5
    before = dict.fromkeys(("requests", "failed", "tokens_in", "tokens_out", "cost", "estimated"), 0.0)
    usage = counted(llm, before, caller=caller)
    assert usage["tokens_out"] == 100_000
    refused = post(llm, {"model": MODEL, "messages": []}, caller)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "budget_exceeded")
    assert refused.json()["error"]["type"] == "insufficient_quota"


def test_what_is_under_way_is_reserved_and_settled(llm: LlmEdge) -> None:
    slow = scripted([(1.5, head()), (0, ANSWER)], max_tokens=10_000)
    raw = json.dumps(slow).encode()
    lines = [f"POST {CHAT} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {llm.keys['judy']}"]
    lines += [f"Content-Length: {len(raw)}", "", ""]
    with socket.create_connection(("127.0.0.1", llm.port_number), timeout=20) as stream:
        stream.sendall("\r\n".join(lines).encode() + raw)
        time.sleep(0.5)
        refused = post(llm, {"model": MODEL, "messages": []}, "judy")
        received = b""
        while b"total_tokens" not in received:
            piece = stream.recv(4096)
            assert piece, received
            received += piece
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "budget_reserved")
    assert refused.headers["Retry-After"] == "5"
    assert "x-should-retry" not in refused.headers
    # It cost a fraction of what was reserved.
    deadline = time.monotonic() + COUNT_SECONDS
    while (again := post(llm, scripted(whole(ANSWER), max_tokens=10), "judy")).status_code != 200:
        assert time.monotonic() < deadline, again.text
        time.sleep(0.1)


def test_an_operator_lets_a_caller_begin_again(llm: LlmEdge) -> None:
    before = numbers(llm)
    assert post(llm, scripted(whole(ANSWER))).status_code == 200
    counted(llm, before)
    url = f"http://127.0.0.1:{ports.EDGE_STATUS}/usage/reset?caller=key:alice"

    body = json.loads(llm.inside("curl", "-fsS", "-X", "POST", url))

    assert body["counters"] > 0
    assert set(numbers(llm).values()) == {0}
    time.sleep(2.5)
    assert "key:alice" not in llm.inside("cat", "/etc/dify-kit/nginx/usage/usage.json")
    assert json.loads(llm.inside("curl", "-fsS", "-X", "POST", url))["counters"] == 0


# --- headers and codings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["200 KEY", "400 KEY", "429 KEY"])
def test_no_header_brings_a_key(llm: LlmEdge, status: str) -> None:
    said = [
        "Content-Disposition: attachment; filename=KEY",
        "Retry-After: KEY",
        "retry-after-ms: KEY",
        "x-should-retry: KEY",
        "Vary: KEY",
        "WWW-Authenticate: KEY",
        "Last-Modified: KEY",
        "ETag: KEY",
        "Link: <KEY>",
        "Allow: KEY",
        "Cache-Control: KEY",
        "Content-Language: KEY",
        "Content-Location: KEY",
        "Server-Timing: KEY",
        "X-Request-Id: KEY",
        "Access-Control-Expose-Headers: KEY",
    ]
    kind = 'application/json; charset="KEY"; key=KEY'
    script = whole(ANSWER.replace("Hi", "KEY"), *said, status=status, kind=kind)
    # The key is longer than what stands for it.
    script = [
        (seconds, piece.replace(b"KEY", b"hidden") if isinstance(piece, bytes) else piece)
        for seconds, piece in script
    ]

    answer = post(llm, scripted(script), Origin=ALLOWED)

    key = llm.upstream_keys["first"]
    assert answer.status_code == int(status.split(maxsplit=1)[0])
    assert key not in str(answer.headers)
    assert key not in answer.reason_phrase
    assert answer.headers["Content-Type"] == "application/json"


def test_headers_that_clients_obey_pass(llm: LlmEdge) -> None:
    said = ["Retry-After: 17", "retry-after-ms: 1700", "x-should-retry: true"]
    answer = post(llm, scripted(whole('{"error":{"message":"m"}}', *said, status="429 No")), Origin=ALLOWED)

    given = {name: answer.headers.get(name) for name in ("Retry-After", "retry-after-ms", "x-should-retry")}
    assert given == {"Retry-After": "17", "retry-after-ms": "1700", "x-should-retry": "true"}
    exposed = answer.headers["Access-Control-Expose-Headers"].lower()
    assert {"retry-after", "retry-after-ms", "x-should-retry"} <= set(exposed.split(", "))


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd", "x-KEY"])
def test_a_compressed_answer_is_an_error_that_says_so(llm: LlmEdge, coding: str) -> None:
    raw = gzip.compress(ANSWER.encode())
    for status in ("200 OK", "400 Bad"):
        answer = post(llm, scripted(whole(raw, f"Content-Encoding: {coding}", status=status)))
        error = answer.json()["error"]
        if status == "200 OK":
            assert (answer.status_code, error["code"]) == (502, "upstream_coding")
        else:
            assert (answer.status_code, error["code"]) == (400, "upstream_error")
        assert "Content-Encoding" not in answer.headers


def test_identity_is_asked_for_and_taken(llm: LlmEdge) -> None:
    assert post(llm, scripted(whole(ANSWER, "Content-Encoding: identity"))).text == ANSWER
    echo = post(llm, {"model": MODEL, "messages": [], "user": "first=echo"})
    seen = json.loads(echo.json()["choices"][0]["message"]["content"])
    assert seen["headers"]["accept-encoding"] == "identity"


def test_large_headers_of_an_answer_pass(llm: LlmEdge) -> None:
    before = numbers(llm)
    answer = post(llm, scripted(whole(ANSWER, *(f"X-Filler-{number}: {'x' * 1000}" for number in range(20)))))

    assert (answer.status_code, answer.text) == (200, ANSWER)
    assert counted(llm, before)["requests"] == 1


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "text", "code", "sort"),
    [
        ("429 No", "text/plain", "slow down", "rate_limit_exceeded", "rate_limit_error"),
        ("429 No", "text/html", "<html>", "rate_limit_exceeded", "rate_limit_error"),
        ("400 No", "text/plain", '{"error":{"message":"m","type":"t","code":"c"}}', "c", "t"),
        ("422 No", "application/octet-stream", '{"error":{"message":"m","type":"t","code":"c"}}', "c", "t"),
        ("400 No", "application/json", '{"error":{"message":"m","type":"t","code":"c"}}', "c", "t"),
        ("400 No", "application/json", "<html>", "upstream_error", "invalid_request_error"),
        ("400 No", "application/json", "", "upstream_error", "invalid_request_error"),
        ("408 No", "text/plain", "late", "upstream_timeout", "server_error"),
        ("301 Moved", "text/html", "", "upstream_failed", "server_error"),
        ("302 Found", "application/json", "{}", "upstream_failed", "server_error"),
        ("307 Moved", "text/html", "", "upstream_failed", "server_error"),
        ("304 Not", "", "", "upstream_failed", "server_error"),
        ("200 OK", "application/json", "", "upstream_empty", "server_error"),
        ("204 None", "", "", "upstream_empty", "server_error"),
    ],
)
def test_errors_of_the_last_upstream(  # noqa: PLR0917  # one column of the table each
    llm: LlmEdge, status: str, kind: str, text: str, code: str, sort: str
) -> None:
    before = numbers(llm)
    for streamed in (False, True):
        script = whole(text, "Location: https://elsewhere.example/", status=status, kind=kind)
        answer = post(llm, scripted(script, stream=streamed))

        number = int(status.split(maxsplit=1)[0])
        assert answer.status_code == {408: 504}.get(number, number if number >= 400 else 502)
        error = answer.json()["error"]
        assert (error["code"], error["type"]) == (code, sort)
        assert answer.headers["Content-Type"] == "application/json"
        assert "Location" not in answer.headers
    deadline = time.monotonic() + COUNT_SECONDS
    while (now := numbers(llm))["failed"] < before["failed"] + 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (now["cost"], now["requests"]) == (before["cost"], before["requests"])


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Moved", "308 Moved", "304 Not"])
def test_a_redirect_is_a_failure_that_the_next_upstream_mends(llm: LlmEdge, status: str) -> None:
    body = scripted(whole("", "Location: https://elsewhere.example/", status=status)) | {"model": "gpt-4.1"}

    answer = post(llm, body)

    assert (answer.status_code, answer.json()["id"]) == (200, "chat-second")


def test_early_hints_are_not_taken_for_an_answer(llm: LlmEdge) -> None:
    script = [(0.0, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"), *whole(ANSWER)]

    answer = post(llm, scripted(script))

    assert answer.status_code in {200, 502}
    assert (
        answer.json()["error"]["code"] == "upstream_empty"
        if answer.status_code == 502
        else answer.text == ANSWER
    )


@pytest.mark.parametrize(
    ("kind", "script", "streamed"),
    [
        ("an error", whole('{"error":{"message":"overloaded","code":529}}'), False),
        (
            "an error in a stream",
            [(0, head(kind="text/event-stream")), (0, 'data: {"error":{"message":"m"}}\n\n')],
            True,
        ),
        ("nothing", whole(""), False),
        ("nothing, of unknown length", [(0, head())], False),
        ("nothing but blank lines", [(0, head()), (0, "\n\n\n")], False),
    ],
)
def test_an_answer_that_is_none_is_a_failure_and_another_upstream_is_asked_next(
    llm: LlmEdge, kind: str, script: Script, streamed: bool
) -> None:
    wait_for_the_first(llm)
    before = numbers(llm, "gpt-4.1")
    failures = json.loads(llm.status("/usage"))["upstreams"]
    post(llm, scripted(script, stream=streamed) | {"model": "gpt-4.1"})

    usage = counted(llm, before, "gpt-4.1")
    assert (usage["failed"], usage["requests"], usage["cost"]) == (1, 0, 0), kind
    after = json.loads(llm.status("/usage"))["upstreams"]
    (month,) = after
    assert sum(after[month]["first"].values()) == sum(failures.get(month, {}).get("first", {}).values()) + 1
    # Clients try again, and then the other one answers.
    assert "chat-second" in post(llm, {"model": "gpt-4.1", "messages": []}).text


def wait_for_the_first(llm: LlmEdge) -> None:
    """Wait until the first upstream is asked again for its model."""
    deadline = time.monotonic() + 20
    while "chat-first" not in post(llm, {"model": "gpt-4.1", "messages": []}).text:
        assert time.monotonic() < deadline, "the first upstream is never asked again"
        time.sleep(0.3)


def test_a_cut_answer_is_no_success(llm: LlmEdge) -> None:
    before = numbers(llm)
    script = [(0, head("200 OK", "application/json", "Content-Length: 5000")), (0, '{"choices":[{"message":')]
    with pytest.raises(httpx.RemoteProtocolError):
        post(llm, scripted(script))

    usage = counted(llm, before)
    assert (usage["failed"], usage["requests"]) == (1, 0)


def test_failures_are_counted_by_upstream(llm: LlmEdge) -> None:
    wait_for_the_first(llm)
    for fault in ("500", "429", "401"):
        assert post(llm, {"model": "gpt-4.1", "messages": [], "user": f"first={fault}"}).status_code == 200
    lines = llm.status("/metrics").splitlines()

    name = "dify_kit_llm_upstream_failures_total"
    assert f"# TYPE {name} counter" in lines
    for fault in ("500", "429", "401"):
        assert any(line.startswith(f'{name}{{upstream="first",status="{fault}"}} ') for line in lines), fault


def served(llm: LlmEdge) -> dict[str, dict[str, float]]:
    """Return what each upstream served this month."""
    months: dict[str, dict[str, dict[str, float]]] = json.loads(llm.status("/usage"))["served"]
    return months[max(months)] if months else {}


def test_what_was_served_is_counted_for_the_upstream_that_answered(llm: LlmEdge) -> None:
    wait_for_the_first(llm)
    asked: dict[str, Any] = {"model": "gpt-4.1", "messages": []}
    for upstream, user in (("first", ""), ("second", "first=500")):
        numbers_before, before = numbers(llm, "gpt-4.1"), served(llm)

        assert f"chat-{upstream}" in post(llm, {**asked, "user": user}).text

        usage = counted(llm, numbers_before, "gpt-4.1")
        after = served(llm)
        changed = {
            name: {field: value - before.get(name, {}).get(field, 0) for field, value in fields.items()}
            for name, fields in after.items()
            if fields != before.get(name)
        }
        wanted = {field: usage[field] for field in ("requests", "tokens_in", "tokens_out", "cost")}
        assert changed == {upstream: pytest.approx(wanted)}
    name = "dify_kit_llm_upstream_cost_dollars_total"
    assert any(
        line.startswith(f'{name}{{upstream="second"}} ') for line in llm.status("/metrics").splitlines()
    )
