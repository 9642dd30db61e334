"""The LLM proxy with OpenAI's own client, against stand-ins of upstreams over TLS."""

import asyncio
import base64
import hashlib
import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from dify_kit.benchmark import deployed
from dify_kit.benchmark.load import Limits, run
from dify_kit.benchmark.report import result_of
from infra.catalogue import ports
from infra.edge.llm import RATE_STATUS
from infra.settings.proxy_keys import PREFIX
from smoke_tests import llm as smoke_llm
from smoke_tests import test_llm as smoke
from smoke_tests.client import Client, Patience
from smoke_tests.masking import Redactor, Secret
from smoke_tests.target import Target
from support.stacks import CHECKOUT, KIT, wait_until
from tests.integration.containers import printed
from tests.integration.edge.container import ALLOWED
from tests.integration.edge.llm import NEXT_KEY, TIMEOUT_SECONDS, LlmEdge
from tests.integration.load import steady_load

# One client of each style: by API key, by a form for a token, blocking and streamed.
CORPUS = CHECKOUT / "tests" / "unit" / "migrate" / "corpus"
CLIENTS = (
    "decided/requests_flat.py",
    "decided/oauth_class.py",
    "repaired/client_credentials.py",
    "decided/stream_decoded.py",
    "decided/stream_unicode.py",
    "decided/httpx_client.py",
    "decided/httpx_async.py",
    "decided/httpx_client_stream.py",
    "decided/httpx_async_stream.py",
    "decided/aiohttp_nested.py",
    "decided/aiohttp_stream.py",
    "decided/dify_client_blocking.py",
    "decided/dify_client_stream.py",
    "packages/objects_blocking.py",
    "packages/objects_async.py",
    "packages/sdk_httpx.py",
)
ASKED: Any = [{"role": "user", "content": "Hello"}]
TEXT = "The quick brown 狐 jumps"
CHAT = "/llm/v1/chat/completions"
# Counting comes after the answer.
COUNT_SECONDS = 5


@pytest.fixture(scope="module")
def llm(open_directory: Callable[[], Path]) -> Iterator[LlmEdge]:
    """One edge with the LLM proxy, for all tests of this file."""
    one = LlmEdge(open_directory())
    try:
        yield one
    finally:
        one.remove()


def client(llm: LlmEdge, caller: str = "alice", **options: Any) -> OpenAI:
    given: dict[str, Any] = {"api_key": llm.keys[caller], "base_url": f"{llm.url}/llm/v1"}
    return OpenAI(**({"max_retries": 0, "timeout": 15} | given | options))


def post(
    llm: LlmEdge, body: object, *, caller: str = "alice", path: str = CHAT, **more: Any
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {llm.keys[caller]}"} | more.pop("headers", {})
    return llm.http.post(path, json=body, headers=headers, **more)


def body(model: str = "claude-sonnet-4.5", fault: str = "", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": ASKED, "user": fault, **more}


def used(llm: LlmEdge, caller: str) -> dict[str, Any]:
    """Return what a caller used this month: model -> numbers."""
    months = list(json.loads(llm.status("/usage"))["months"].values())
    return dict(months[-1].get(f"key:{caller}", {})) if months else {}


def numbers(llm: LlmEdge, caller: str, model: str) -> dict[str, float]:
    nothing = dict.fromkeys(("requests", "tokens_in", "tokens_out", "cost", "estimated"), 0.0)
    return {**nothing, **used(llm, caller).get(model, {})}


def counted(llm: LlmEdge, model: str, before: dict[str, float], caller: str = "alice") -> dict[str, float]:
    """Wait until one more request is counted and return what came on top."""
    deadline = time.monotonic() + COUNT_SECONDS
    while time.monotonic() < deadline:
        now = numbers(llm, caller, model)
        if now["requests"] > before["requests"]:
            return {name: now[name] - before[name] for name in before if name != "failed"}
        time.sleep(0.05)
    raise AssertionError(f"nothing was counted within {COUNT_SECONDS} s: {before}")


def test_models_are_those_of_the_allow_list(llm: LlmEdge) -> None:
    names = {model.id for model in client(llm).models.list()}

    assert {"gpt-4.1", "claude-sonnet-4.5", "gemini-2.5-flash", "text-embedding-3-small"} <= names
    assert client(llm).models.retrieve("gpt-4.1").id == "gpt-4.1"
    with pytest.raises(openai.NotFoundError):
        client(llm).models.retrieve("gpt-2")
    assert [model.id for model in client(llm, "dave").models.list()] == ["claude-sonnet-4.5"]


def test_chat(llm: LlmEdge) -> None:
    before = numbers(llm, "alice", "gpt-4.1")

    answer = client(llm).chat.completions.create(model="gpt-4.1", messages=ASKED)

    assert answer.choices[0].message.content == TEXT
    assert answer.id == "chat-first"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 18
    usage = counted(llm, "gpt-4.1", before)
    assert usage.pop("cost") == pytest.approx(0.025)
    assert usage == {"requests": 1, "tokens_in": 11, "tokens_out": 7, "estimated": 0}


def test_short_form(llm: LlmEdge) -> None:
    answer = post(llm, body(), path="/api/chat")

    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == TEXT


def test_tools_go_through(llm: LlmEdge) -> None:
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    answer = client(llm).chat.completions.create(model="claude-sonnet-4.5", messages=ASKED, tools=[tool])

    calls: Any = answer.choices[0].message.tool_calls
    assert (calls[0].function.name, json.loads(calls[0].function.arguments)) == ("weather", {"city": "Ulm"})


def test_embeddings(llm: LlmEdge) -> None:
    before = numbers(llm, "alice", "text-embedding-3-small")

    answer = client(llm).embeddings.create(model="text-embedding-3-small", input="x", encoding_format="float")

    assert len(answer.data[0].embedding) == 1536
    usage = counted(llm, "text-embedding-3-small", before)
    assert (usage["tokens_in"], usage["tokens_out"], usage["estimated"]) == (5, 0, 0)


@pytest.mark.parametrize("asks", [True, False])
def test_stream_shows_usage_only_to_those_who_ask(llm: LlmEdge, asks: bool) -> None:
    before = numbers(llm, "alice", "claude-sonnet-4.5")
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if asks else {}

    chunks = list(
        client(llm).chat.completions.create(model="claude-sonnet-4.5", messages=ASKED, stream=True, **options)
    )

    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXT
    assert [bool(c.usage) for c in chunks].count(True) == (1 if asks else 0)
    assert [bool(c.choices) for c in chunks].count(False) == (1 if asks else 0)
    assert counted(llm, "claude-sonnet-4.5", before)["tokens_out"] == 5


def test_a_stream_of_a_caller_who_did_not_ask_does_not_mention_usage(llm: LlmEdge) -> None:
    for options in ({}, {"stream_options": None}, {"stream_options": {"include_usage": False}}):
        answer = post(llm, body(stream=True, **options))

        assert answer.status_code == 200
        assert "usage" not in answer.text
        assert answer.text.endswith("data: [DONE]\n\n")


def test_stream_arrives_as_it_is_made(llm: LlmEdge) -> None:
    began = time.monotonic()
    with llm.http.stream(
        "POST",
        CHAT,
        json=body(fault="first=slow", stream=True),
        headers={"Authorization": f"Bearer {llm.keys['alice']}"},
    ) as answer:
        events = (line for line in answer.iter_lines() if line.startswith("data: {"))
        times = [time.monotonic() - began for _ in events]

    assert times[0] < 0.4
    assert times[-1] > 2


def test_caller_stays_unknown_to_the_upstream(llm: LlmEdge) -> None:
    given = {"Cookie": "session=1", "X-Forwarded-For": "192.0.2.9", "X-Secret": "mine", "Origin": ALLOWED}

    answer = post(llm, body(fault="first=echo"), headers=given)

    seen = json.loads(answer.json()["choices"][0]["message"]["content"])
    assert seen["path"] == "/v1/chat/completions"
    sent = [
        "accept",
        "accept-encoding",
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "x-request-id",
    ]
    assert sorted(seen["headers"]) == sent
    assert seen["headers"]["host"] == "first.test:8443"
    assert PREFIX not in json.dumps(seen)


def test_upstreams_headers_stay_behind(llm: LlmEdge) -> None:
    answer = post(llm, body(), headers={"Origin": ALLOWED})

    assert not {"x-echo", "set-cookie", "openai-organization", "x-accel-redirect"} & set(answer.headers)
    assert answer.headers["Access-Control-Allow-Origin"] == ALLOWED
    assert (
        "Access-Control-Allow-Origin"
        not in post(llm, body(), headers={"Origin": "https://evil.example"}).headers
    )


def test_preflight_needs_no_key(llm: LlmEdge) -> None:
    asked = {"Origin": ALLOWED, "Access-Control-Request-Method": "POST"}

    answer = llm.http.options(CHAT, headers=asked)

    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (204, ALLOWED)
    # What OpenAI's client for JavaScript sends from a browser.
    assert "x-stainless-lang" in answer.headers["Access-Control-Allow-Headers"].lower()
    other = llm.http.options("/v1/parameters", headers=asked)
    assert "stainless" not in other.headers.get("Access-Control-Allow-Headers", "").lower()


def assert_smoke_tests_pass(llm: LlmEdge) -> None:
    """Demand of an edge, whatever its engine, what the smoke tests of the LLM proxy demand of a stack."""
    with_key = smoke_llm.Llm(
        url=f"{llm.url}/llm/v1",
        short_url=f"{llm.url}/api/chat",
        models=tuple(model.id for model in client(llm).models.list()),
        origins=(ALLOWED,),
        key=Secret(llm.keys["alice"]),
        chat_model="gpt-4.1",
    )
    target = Target(
        url=llm.url, service_url=llm.url, console_url=llm.url, key=None, policies=(), llm=with_key
    )
    redact = Redactor()
    redact.learn(llm.upstream_keys.values())
    visitor = Client(key=None, redact=redact, patience=Patience(seconds=10), direct=True, verify=True)
    caller = {"Authorization": f"Bearer {llm.keys['alice']}"}

    smoke.test_a_request_without_a_key_is_refused(visitor, with_key)
    smoke.test_an_unknown_key_is_refused(visitor, with_key)
    smoke.test_refusals_contain_no_key(visitor, with_key)
    smoke.test_allowed_origins_pass_the_preflight(visitor, with_key)
    smoke.test_other_origins_fail_the_preflight(visitor, target, with_key)
    smoke.test_a_caller_lists_the_served_models(visitor, with_key, caller)
    smoke.test_a_model_that_is_not_served_is_refused(visitor, with_key, caller)
    smoke.test_chat_completions_refuse_get(visitor, with_key, caller)
    smoke.test_a_model_answers(visitor, with_key, caller)
    smoke.test_a_model_answers_as_a_stream(visitor, with_key, caller)
    visitor.close()


def test_the_smoke_tests_pass(llm: LlmEdge) -> None:
    assert_smoke_tests_pass(llm)


@pytest.mark.parametrize("streaming", [True, False])
def test_dify_kit_bench_measures_the_proxy(llm: LlmEdge, streaming: bool) -> None:
    exports = {"llm": {"url": f"{llm.url}/llm/v1", "models": ["only-second"]}, "tls": {"ca": ""}}
    key = llm.keys["grace"]
    target = deployed.by_proxy("edge", exports, key, "only-second", streaming=streaming)

    found = asyncio.run(run(target, Limits(requests=12, seconds=20, concurrency=3), lambda _: None))

    result = result_of(target, found, 3)
    assert (result["ok"], result["errors"], result["warmUp"]["errors"]) == (12, {}, {})
    assert (result["firstTokenMs"]["p50"] is not None) == streaming
    assert key not in str(result)


# --- a key is required -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [CHAT, "/llm/v1/embeddings", "/llm/v1/models", "/llm/v1/models/gpt-4.1", "/api/chat"]
)
@pytest.mark.parametrize(
    "credential",
    [
        "",
        "Bearer",
        "Bearer app-1234567890abcdef",
        f"Bearer {PREFIX}{'a' * 43}",
        "Basic eDp5",
        f"Bearer {PREFIX}",
    ],
)
def test_no_way_in_without_a_key(llm: LlmEdge, path: str, credential: str) -> None:
    headers = {"Authorization": credential} if credential else {}

    for method in ("GET", "POST"):
        answer = llm.http.request(method, path, json=body(), headers=headers)

        assert answer.status_code == 401
        error = answer.json()["error"]
        assert error["type"] == "authentication_error"
        assert error["code"] == ("invalid_api_key" if credential else "unauthorized")
        assert "Bearer" in answer.headers["WWW-Authenticate"]


def test_inner_locations_cannot_be_asked_for(llm: LlmEdge) -> None:
    for path in ("/_llm_token", "/llm/", "/llm/v1/other", "/llm/v1/../v1/models"):
        assert post(llm, body(), path=path).status_code in {404, 405}


def test_expired_key_is_refused(llm: LlmEdge) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        client(llm, "erin").models.list()
    assert caught.value.code == "expired_api_key"


def test_internal_key_works_on_the_internal_listener_only(llm: LlmEdge) -> None:
    inner = f"http://localhost:{llm.port(ports.EDGE_LLM)}/llm/v1"

    with pytest.raises(openai.PermissionDeniedError):
        client(llm, "dify").models.list()
    answer = client(llm, "dify", base_url=inner).chat.completions.create(model="gpt-4.1", messages=ASKED)
    assert answer.choices[0].message.content == TEXT
    with pytest.raises(openai.AuthenticationError):
        client(llm, base_url=inner, api_key="nothing").models.list()


def test_a_key_may_be_for_some_models(llm: LlmEdge) -> None:
    assert client(llm, "dave").chat.completions.create(model="claude-sonnet-4.5", messages=ASKED).choices
    with pytest.raises(openai.PermissionDeniedError) as refused:
        client(llm, "dave").chat.completions.create(model="gpt-4.1", messages=ASKED)
    assert refused.value.code == "model_not_allowed"


# --- tokens of OAuth ---------------------------------------------------------------------------------------------


def token(status: str = "200", scopes: str = "chat llm", sub: str = "app1") -> str:
    claims = json.dumps({"Sub": sub, "Tenant": "acme", "Scopes": scopes, "nonce": secrets.token_hex(4)})
    return f"eyJhbGciOiJFUzI1NiJ9.{base64.urlsafe_b64encode(claims.encode()).decode().rstrip('=')}.{status}"


def test_a_token_with_the_scope_opens_the_proxy(llm: LlmEdge) -> None:
    one = token()
    for _ in range(2):
        answer = client(llm, api_key=one).chat.completions.create(model="gpt-4.1", messages=ASKED)
        assert answer.choices[0].message.content == TEXT

    (month,) = json.loads(llm.status("/usage"))["months"].values()
    assert month["client:acme/app1"]["gpt-4.1"]["requests"] >= 1


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("one", "status"),
    [
        (token("401"), 401),
        (token(scopes="chat files"), 403),
        (token(scopes="llmx xllm"), 403),
        (token(scopes=""), 403),
        (token("503"), 503),
        (token("500"), 503),
        (token("hang"), 503),
        ("a.b.c.d", 401),
        ("..", 401),
    ],
    ids=[
        "refused",
        "other scopes",
        "like the scope",
        "no scope",
        "busy",
        "broken",
        "hangs",
        "four parts",
        "empty",
    ],
)
def test_tokens_that_open_nothing(llm: LlmEdge, method: str, one: str, status: int) -> None:
    path = CHAT if method == "POST" else "/llm/v1/models"
    for _ in range(2):
        answer = llm.http.request(method, path, json=body(), headers={"Authorization": f"Bearer {one}"})

        assert answer.status_code == status
        assert answer.json()["error"]["message"]
        assert len(answer.headers.get_list("WWW-Authenticate")) == (1 if status in {401, 403} else 0)
        if status == 403:
            error = answer.json()["error"]
            assert (error["code"], error["type"]) == ("insufficient_scope", "permission_error")
            assert error["message"] == "insufficient_scope: the token lacks the scope llm."
            challenge = 'Bearer error="insufficient_scope", scope="llm"'
            assert answer.headers["WWW-Authenticate"] == challenge
        assert answer.headers.get("Retry-After") == ("5" if status == 503 else None)


def test_a_subject_may_have_any_name(llm: LlmEdge) -> None:
    assert (
        llm.http.get(
            "/llm/v1/models", headers={"Authorization": f"Bearer {token(sub='x y{}' + chr(34) + 'z' * 200)}"}
        ).status_code
        == 200
    )
    answer = client(llm, api_key=token(sub='q"; drop')).chat.completions.create(
        model="gpt-4.1", messages=ASKED
    )
    assert answer.choices

    deadline = time.monotonic() + COUNT_SECONDS
    while "client:" + hashlib.sha256(b'acme/q"; drop').hexdigest()[:32] not in llm.status("/usage"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[]", "invalid_json"),
        (b"null", "invalid_json"),
        (b'"x"', "invalid_json"),
        (b"\xff\xfe{}", "invalid_json"),
        (b"{}", "model_required"),
        (b'{"model": 1}', "model_required"),
        (b'{"model": "gpt-2"}', "model_not_found"),
        (b'{"model": "__proto__"}', "model_not_found"),
        (b'{"model": "constructor"}', "model_not_found"),
        (b'{"model": "text-embedding-3-small"}', "model_not_found"),
    ],
)
def test_what_cannot_be_understood(llm: LlmEdge, sent: bytes, code: str) -> None:
    answer = llm.http.post(CHAT, content=sent, headers={"Authorization": f"Bearer {llm.keys['alice']}"})

    assert answer.status_code == (404 if code == "model_not_found" else 400)
    assert answer.json()["error"]["code"] == code


def test_a_large_body_is_refused_and_a_smaller_one_passes(llm: LlmEdge) -> None:
    def sized(length: int) -> httpx.Response:
        return post(llm, {"model": "gpt-4.1", "messages": [{"role": "user", "content": "x" * length}]})

    assert sized(900_000).status_code == 200
    assert (sized(1_100_000).status_code, sized(1_100_000).json()["error"]["code"]) == (
        413,
        "request_too_large",
    )


# --- upstreams fail ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["429", "500", "503", "529", "hang"])
def test_the_next_upstream_takes_over(llm: LlmEdge, fault: str) -> None:
    for stream in (False, True):
        answer = post(llm, body("gpt-4.1", f"first={fault}", stream=stream))

        assert answer.status_code == 200
        assert "chat-second" in answer.text


def test_unreachable_and_untrusted_upstreams_are_passed_over(llm: LlmEdge) -> None:
    answer = post(llm, body("gemini-2.5-flash", "second=echo"))

    seen = json.loads(answer.json()["choices"][0]["message"]["content"])
    assert seen["headers"]["host"] == "second.test:8444"
    assert seen["body"]["model"] == "flash"


@pytest.mark.parametrize("fault", ["400", "404", "422"])
def test_the_callers_own_errors_are_not_tried_elsewhere(llm: LlmEdge, fault: str) -> None:
    answer = post(llm, body("gpt-4.1", f"first={fault}"))

    assert (answer.status_code, answer.json()["error"]["message"]) == (int(fault), f"first says {fault}")


@pytest.mark.parametrize(
    ("model", "fault", "status", "code"),
    [
        ("claude-sonnet-4.5", "first=500", 500, "as_asked"),
        ("claude-sonnet-4.5", "first=401", 502, "upstream_denied"),
        ("claude-sonnet-4.5", "first=403", 502, "upstream_denied"),
        ("claude-sonnet-4.5", "first=502", 502, "upstream_failed"),
        ("claude-sonnet-4.5", "first=503", 503, "upstream_unavailable"),
        ("claude-sonnet-4.5", "first=hang", 504, "upstream_timeout"),
        ("claude-sonnet-4.5", "first=html", 404, "upstream_error"),
        ("only-refused", "", 502, "upstream_failed"),
        ("only-misnamed", "", 502, "upstream_failed"),
        ("only-untrusted", "", 502, "upstream_failed"),
    ],
)
def test_the_last_ones_failure_is_told(llm: LlmEdge, model: str, fault: str, status: int, code: str) -> None:
    began = time.monotonic()

    answer = post(llm, body(model, fault))

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/json"
    assert time.monotonic() - began < TIMEOUT_SECONDS + 3
    assert "first.test" not in answer.text


def test_the_last_ones_429_says_when_to_come_again(llm: LlmEdge) -> None:
    answer = post(llm, body(fault="first=429"))

    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
    both = post(llm, body("gpt-4.1", "first=429,second=429"))
    assert both.json()["error"]["message"] == "second says 429"


def test_client_retries_what_may_be_retried(llm: LlmEdge) -> None:
    before = llm.nginx.logs().count(b'"agent":"OpenAI/')
    with pytest.raises(openai.InternalServerError):
        client(llm, max_retries=1).chat.completions.create(model="only-refused", messages=ASKED)

    deadline = time.monotonic() + COUNT_SECONDS
    while llm.nginx.logs().count(b'"agent":"OpenAI/') < before + 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert llm.nginx.logs().count(b'"agent":"OpenAI/') == before + 2


def test_a_cut_stream_ends_and_is_charged_by_estimate(llm: LlmEdge) -> None:
    before = numbers(llm, "alice", "claude-sonnet-4.5")
    request = llm.http.build_request(
        "POST",
        CHAT,
        json=body(fault="first=cut", stream=True),
        headers={"Authorization": f"Bearer {llm.keys['alice']}"},
    )
    pieces = llm.http.send(request, stream=True).iter_raw()

    received: list[bytes] = []
    with pytest.raises(httpx.RemoteProtocolError):
        received.extend(pieces)
    assert b"brown" in b"".join(received)
    usage = counted(llm, "claude-sonnet-4.5", before)
    assert usage["estimated"] == 1
    assert usage["tokens_out"] >= 3
    assert usage["tokens_in"] > 0


@pytest.mark.parametrize(("fault", "least"), [("slow", 2), ("batch", 500)])
def test_a_caller_who_leaves_pays_for_what_was_sent(llm: LlmEdge, fault: str, least: int) -> None:
    before = numbers(llm, "alice", "claude-sonnet-4.5")
    with llm.http.stream(
        "POST",
        CHAT,
        json=body(fault=f"first={fault}", stream=True),
        headers={"Authorization": f"Bearer {llm.keys['alice']}"},
    ) as answer:
        lines = answer.iter_lines()
        while not next(lines).startswith("data: {"):
            pass
        if fault == "slow":
            while not next(lines).startswith("data: {"):
                pass

    usage = counted(llm, "claude-sonnet-4.5", before)
    assert usage["estimated"] == 1
    assert least <= usage["tokens_out"] < 3 * least + 5


def test_an_answer_without_usage_is_estimated(llm: LlmEdge) -> None:
    for stream in (False, True):
        before = numbers(llm, "alice", "claude-sonnet-4.5")
        assert post(llm, body(fault="first=silent", stream=stream)).status_code == 200
        usage = counted(llm, "claude-sonnet-4.5", before)
        assert usage["estimated"] == 1
        assert usage["tokens_out"] > 3


def test_malformed_stream_passes_and_ends(llm: LlmEdge) -> None:
    answer = post(llm, body(fault="first=malformed", stream=True))

    assert answer.text == "data: {not json\n\nnonsense without end"


def peak_memory(llm: LlmEdge) -> int:
    """Return how many bytes nginx's processes had at most since they started."""
    output = printed(llm.nginx, ["sh", "-c", "cat /proc/[0-9]*/status | grep VmHWM"])
    return sum(int(line.split()[1]) * 1024 for line in output.splitlines())


def test_a_huge_answer_takes_no_memory_and_blocks_nobody(llm: LlmEdge) -> None:
    received = 0
    done = threading.Event()
    before = peak_memory(llm)

    def others() -> list[float]:
        times = []
        while not done.is_set():
            began = time.monotonic()
            assert post(llm, body("gpt-4.1")).status_code == 200
            times.append(time.monotonic() - began)
        return times

    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(others)
        with llm.http.stream(
            "POST",
            CHAT,
            json=body(fault="first=huge"),
            headers={"Authorization": f"Bearer {llm.keys['alice']}"},
        ) as answer:
            for piece in answer.iter_raw():
                received += len(piece)
                # The rest would tell nothing more.
                if received > 100_000_000:
                    break
        done.set()
        times = beside.result()

    assert max(times) < 3
    # What tests before this one left is not of interest.
    assert peak_memory(llm) - before < 50_000_000


def test_a_long_answer_waits_for_a_slow_caller_and_not_in_memory(llm: LlmEdge) -> None:
    before, received = peak_memory(llm), 0
    headers = {"Authorization": f"Bearer {llm.keys['alice']}"}

    with llm.http.stream("POST", CHAT, json=body(fault="first=huge"), headers=headers) as answer:
        for piece in answer.iter_raw(1_000_000):
            received += len(piece)
            time.sleep(0.05)
            if received > 20_000_000:
                break
        # The upstream would have sent fifty times as much.
        assert peak_memory(llm) - before < 50_000_000


def test_a_long_stream_takes_little_memory(llm: LlmEdge) -> None:
    before = peak_memory(llm)
    headers = {"Authorization": f"Bearer {llm.keys['alice']}"}
    asked = body(fault="first=long", stream=True)

    with llm.http.stream("POST", CHAT, json=asked, headers=headers) as answer:
        received = sum(map(len, answer.iter_raw()))

    assert received > 3_000_000
    # What njs allocates it keeps until the request ends.
    assert peak_memory(llm) - before < 10 * received


# --- limits and budgets ------------------------------------------------------------------------------------------


def test_a_callers_own_limit(llm: LlmEdge) -> None:
    answers = [
        llm.http.get("/llm/v1/models", headers={"Authorization": f"Bearer {llm.keys['bob']}"})
        for _ in range(5)
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[-1].json()["error"]["code"] == "rate_limit_exceeded"
    assert answers[-1].headers["Retry-After"] == "20"
    client(llm).models.list()


def test_streams_count_until_they_end(llm: LlmEdge) -> None:
    headers = {"Authorization": f"Bearer {llm.keys['frank']}"}
    asked = body(fault="first=slow", stream=True)
    with llm.http.stream("POST", CHAT, json=asked, headers=headers) as answer:
        lines = answer.iter_lines()
        assert next(lines)
        refused = post(llm, body(), caller="frank")
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "2")
        assert post(llm, body()).status_code == 200

    deadline = time.monotonic() + COUNT_SECONDS
    while post(llm, body(), caller="frank").status_code != 200:
        assert time.monotonic() < deadline, "a caller who left is still counted"
        time.sleep(0.1)


@pytest.mark.parametrize(("caller", "in_file"), [("mike", False), ("nora", True)])
def test_requests_that_concurrency_refuses_leave_the_rate_alone(
    llm: LlmEdge, caller: str, in_file: bool
) -> None:
    headers = {"Authorization": f"Bearer {llm.keys[caller]}", "Content-Type": "application/json"}

    def ask() -> httpx.Response:
        sent = json.dumps(body()).encode()
        # Of unknown length: such a body is read into a file, at a location of its own.
        return llm.http.post(CHAT, content=iter([sent]) if in_file else sent, headers=headers)

    with llm.http.stream("POST", CHAT, json=body(fault="first=slow", stream=True), headers=headers) as answer:
        # Kept: a generator that ends closes the stream.
        lines = answer.iter_lines()
        assert next(lines).startswith("data: ")
        with ThreadPoolExecutor(8) as pool:
            refused = [one.result() for one in [pool.submit(ask) for _ in range(8)]]
        assert list(lines)[-2] == "data: [DONE]"

    assert [one.status_code for one in refused] == [429] * 8, [one.text[:200] for one in refused]
    assert {one.headers["Retry-After"] for one in refused} == {"2"}
    deadline = time.monotonic() + COUNT_SECONDS
    while (first := ask()).status_code != 200:
        # For its concurrency still: not one of the refused has used the rate up.
        assert first.headers["Retry-After"] == "2"
        assert time.monotonic() < deadline, "a caller who left is still counted"
        time.sleep(0.1)
    # The stream was the first of four.
    rest = [ask() for _ in range(3)]
    assert [one.status_code for one in rest] == [200, 200, 429]
    assert rest[-1].headers["Retry-After"] == "16"


def test_what_the_rate_refuses_keeps_nothing_reserved_and_is_not_counted(llm: LlmEdge) -> None:
    asked = body("gpt-4.1", max_tokens=20)
    answers = [post(llm, asked, caller="oscar") for _ in range(10)]

    assert [one.status_code for one in answers] == [200] + [429] * 9
    # Kept, six reservations would be the rest of the budget.
    assert {one.json()["error"]["code"] for one in answers[1:]} == {"rate_limit_exceeded"}
    # One a minute, as nginx rounds the rate.
    assert {60 <= int(one.headers["Retry-After"]) <= 64 for one in answers[1:]} == {True}
    wait_until(
        lambda: numbers(llm, "oscar", "gpt-4.1")["requests"] == 1, seconds=COUNT_SECONDS, what="a request"
    )
    assert numbers(llm, "oscar", "gpt-4.1").get("failed", 0) == 0


def test_an_upstreams_own_status_for_the_rate_is_a_failure_that_keeps_nothing_reserved(llm: LlmEdge) -> None:
    asked = body("gpt-4.1", fault=f"first={RATE_STATUS}", max_tokens=100)

    answers = [post(llm, asked, caller="judy") for _ in range(8)]

    # Each reserves a fifth of the budget.
    assert {(one.status_code, one.json()["error"]["code"]) for one in answers} == {(502, "upstream_failed")}
    wait_until(
        lambda: numbers(llm, "judy", "gpt-4.1").get("failed") == 8,
        seconds=COUNT_SECONDS,
        what="eight failures",
    )


def test_a_spent_budget_is_refused_for_good(llm: LlmEdge) -> None:
    carol = client(llm, "carol", max_retries=2)
    for _ in range(2):
        before = numbers(llm, "carol", "gpt-4.1")
        carol.chat.completions.create(model="gpt-4.1", messages=ASKED)
        assert counted(llm, "gpt-4.1", before, "carol")["cost"] == pytest.approx(0.025)

    with pytest.raises(openai.RateLimitError) as refused:
        carol.chat.completions.create(model="gpt-4.1", messages=ASKED)
    assert refused.value.code == "budget_exceeded"
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert "Retry-After" not in refused.value.response.headers


# --- what is kept, and what is nowhere ---------------------------------------------------------------------------


def test_metrics_are_prometheus(llm: LlmEdge) -> None:
    post(llm, body())
    lines = llm.status("/metrics").splitlines()

    series = [line for line in lines if line and not line.startswith("#")]
    assert any(line.startswith('dify_kit_llm_requests_total{caller="key:alice",model="') for line in series)
    assert all(float(line.rsplit(" ", 1)[1]) >= 0 for line in series)
    assert 'dify_kit_llm_budget_dollars{caller="key:carol"} 0.05' in series
    assert llm.http.get("/metrics").headers.get("content-type", "").startswith("text/plain") is False


def test_a_call_of_the_proxy_is_a_request_of_its_group(llm: LlmEdge) -> None:
    def answered() -> float:
        wanted = 'dify_kit_edge_requests_total{group="llm",status="2xx"} '
        (found,) = [line for line in llm.status("/metrics").splitlines() if line.startswith(wanted)]
        return float(found.rpartition(" ")[2])

    before = answered()
    for _ in range(3):
        post(llm, body())

    # Others of this module may still be counted.
    wait_until(lambda: answered() >= before + 3, seconds=30, what="three requests are counted")


def test_a_key_is_changed_under_load_without_a_lost_request(llm: LlmEdge) -> None:
    def which() -> str:
        return str(post(llm, body("only-second", "second=which")).json()["choices"][0]["message"]["content"])

    assert which() == "0"
    headers = {"Authorization": f"Bearer {llm.keys['grace']}", "Content-Type": "application/json"}
    with (
        steady_load(f"{llm.url}{CHAT}", headers=headers, body=json.dumps(body("only-second"))) as load,
        ThreadPoolExecutor(1) as pool,
    ):
        stream = pool.submit(post, llm, body("only-second", "second=slow", stream=True))
        time.sleep(1)
        llm.change_key("second", NEXT_KEY)
        # A worker that is on its way out may answer once more on a connection that is kept.
        wait_until(lambda: which() == "1", seconds=120, what="an answer by the next key")
        assert which() == "1"
        assert stream.result().text.endswith("data: [DONE]\n\n")

    assert set(load.statuses) == {200}
    assert load.total > 100
    load.assert_none_lost(reloads=1)


def test_counters_outlive_the_container(llm: LlmEdge) -> None:
    before = used(llm, "alice")
    time.sleep(2.5)
    llm.nginx.kill()
    llm.nginx.start()
    llm.port_number = llm.port()
    llm.http.close()
    llm.http = httpx.Client(base_url=llm.url, timeout=20)
    llm.wait()

    assert used(llm, "alice") == before
    with pytest.raises(openai.RateLimitError):
        client(llm, "carol").chat.completions.create(model="gpt-4.1", messages=ASKED)


def test_keys_are_nowhere(llm: LlmEdge) -> None:
    answers = [
        post(llm, body(fault=f"first={fault}", stream=stream)).text
        for fault in ("leak", "401", "echo", "500", "html")
        for stream in (False, True)
    ]
    time.sleep(1.5)
    places = {
        "answers": "\n".join(answers),
        "logs": llm.nginx.logs().decode(),
        "nginx -T": llm.inside("nginx", "-e", "stderr", "-T", "-c", "/etc/dify-kit/nginx/nginx.conf"),
        "inspect": json.dumps(llm.client.api.inspect_container(llm.nginx.id)),
        "processes": llm.inside("sh", "-c", "cat /proc/*/cmdline /proc/*/environ 2>/dev/null; true"),
        "status": llm.status("/usage") + llm.status("/metrics") + llm.status("/revision"),
        "counters": llm.inside("sh", "-c", "cat /etc/dify-kit/nginx/usage/*"),
    }

    assert "********" in places["answers"]
    for place, text in places.items():
        assert text
        for secret in (NEXT_KEY, *llm.upstream_keys.values(), *llm.keys.values()):
            assert secret not in text, place


@pytest.fixture(scope="module")
def migrated(llm: LlmEdge, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory of clients of Dify that `dify-kit migrate` has moved to the edge."""
    place = tmp_path_factory.mktemp("clients")
    for name in CLIENTS:
        (place / Path(name).name).write_bytes((CORPUS / name).read_bytes())
    options = ("--write", "--to", f"{llm.url}/llm/v1", "--model", "gpt-4.1", "--key-variable", "PROXY_KEY")
    subprocess.run([KIT, "migrate", place, *options], check=True, timeout=60, cwd=CHECKOUT)
    return place


def answer_of(program: Path, key: str) -> str:
    """Return what a program prints; Dify is not there for it."""
    done = subprocess.run(
        [sys.executable, program],
        env={"PATH": "/usr/bin:/bin", "DIFY_URL": "http://127.0.0.1:1", "PROXY_KEY": key, "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def test_migrated_clients_run_against_the_proxy(llm: LlmEdge, migrated: Path) -> None:
    programs = sorted(migrated.glob("*.py"))
    with ThreadPoolExecutor(2) as pool:
        outputs = dict(
            zip(programs, pool.map(lambda one: answer_of(one, llm.keys["alice"]), programs), strict=True)
        )

    assert len(programs) == len(CLIENTS)
    for program, output in outputs.items():
        lines = output.splitlines()
        assert lines, program.name
        assert set(lines) == {TEXT}, f"{program.name}: {output[-2000:]}"
