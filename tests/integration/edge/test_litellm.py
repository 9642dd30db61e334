"""LiteLLM's proxy as the engine: OpenAI's own client through the real edge and a real LiteLLM."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from infra.catalogue.container_paths import LITELLM_DIRECTORY
from infra.resources.configuration import ConfigurationRejectedError
from infra.services import litellm as service
from infra.services.litellm import CONFIG
from tests.integration.edge.litellm import LitellmEdge
from tests.integration.edge.llm import NEXT_KEY
from tests.integration.edge.test_llm import (
    ASKED,
    CHAT,
    TEXT,
    assert_smoke_tests_pass,
    body,
    client,
    counted,
    numbers,
    post,
    token,
)


@pytest.fixture(scope="module")
def llm(open_directory: Callable[[], Path]) -> Iterator[LitellmEdge]:
    """One edge with LiteLLM, for all tests of this file."""
    one = LitellmEdge(open_directory())
    try:
        yield one
    finally:
        one.remove()


def test_models_are_those_of_the_settings(llm: LitellmEdge) -> None:
    names = {model.id for model in client(llm).models.list()}

    assert {"gpt-4.1", "claude-sonnet-4.5", "gemini-2.5-flash", "text-embedding-3-small"} <= names
    assert not any("#" in name for name in names)


def test_a_chat_is_answered_and_counted(llm: LitellmEdge) -> None:
    before = numbers(llm, "alice", "gpt-4.1")

    answer = client(llm).chat.completions.create(model="gpt-4.1", messages=ASKED)

    assert (answer.choices[0].message.content, answer.id) == (TEXT, "chat-first")
    usage = counted(llm, "gpt-4.1", before)
    assert usage.pop("cost") == pytest.approx(0.025)
    assert usage == {"requests": 1, "tokens_in": 11, "tokens_out": 7, "estimated": 0}
    assert post(llm, body(), path="/api/chat").json()["choices"][0]["message"]["content"] == TEXT


@pytest.mark.parametrize("asks", [True, False])
def test_a_stream_shows_usage_only_to_those_who_ask(llm: LitellmEdge, asks: bool) -> None:
    before = numbers(llm, "alice", "claude-sonnet-4.5")
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if asks else {}

    chunks = list(
        client(llm).chat.completions.create(model="claude-sonnet-4.5", messages=ASKED, stream=True, **options)
    )

    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == TEXT
    assert [bool(c.usage) for c in chunks].count(True) == (1 if asks else 0)
    usage = counted(llm, "claude-sonnet-4.5", before)
    assert (usage["tokens_in"], usage["tokens_out"], usage["estimated"]) == (13, 5, 0)


def test_a_stream_arrives_as_it_is_made(llm: LitellmEdge) -> None:
    began = time.monotonic()
    with llm.http.stream(
        "POST",
        CHAT,
        json=body(fault="first=slow", stream=True),
        headers={"Authorization": f"Bearer {llm.keys['alice']}"},
    ) as answer:
        times = [time.monotonic() - began for line in answer.iter_lines() if line.startswith("data: {")]

    assert times[0] < 0.9
    assert times[-1] > 2


def test_tools_and_embeddings_go_through(llm: LitellmEdge) -> None:
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    answer = client(llm).chat.completions.create(model="gpt-4.1", messages=ASKED, tools=[tool])
    calls: Any = answer.choices[0].message.tool_calls
    assert (calls[0].function.name, json.loads(calls[0].function.arguments)) == ("weather", {"city": "Ulm"})

    before = numbers(llm, "alice", "text-embedding-3-small")
    made = client(llm).embeddings.create(model="text-embedding-3-small", input="x", encoding_format="float")
    assert len(made.data[0].embedding) == 1536
    assert counted(llm, "text-embedding-3-small", before)["tokens_in"] == 5


def test_a_request_without_a_key_is_refused(llm: LitellmEdge) -> None:
    for key in ("nothing", f"dkp_{'a' * 43}", llm.upstream_keys["first"]):
        with pytest.raises(openai.AuthenticationError):
            client(llm, api_key=key).chat.completions.create(model="gpt-4.1", messages=ASKED)
    assert llm.http.post(CHAT, json=body()).status_code == 401
    # Nor to LiteLLM itself, from a neighbour.
    asked = ("curl", "-s", "-H", "Content-Type: application/json", "-d", json.dumps(body("gpt-4.1")))
    for given in ((), ("-H", f"Authorization: Bearer sk-{'a' * 43}")):
        answer = llm.inside(*asked, *given, "-w", "%{http_code}", "http://litellm:4000/v1/chat/completions")
        # It says 500 and 400, for lack of a database to look the key up in.
        assert int(answer[-3:]) >= 400
        assert "choices" not in answer
    assert not llm.litellm.attrs["NetworkSettings"]["Ports"]


def test_a_token_with_the_scope_opens_it(llm: LitellmEdge) -> None:
    answer = client(llm, api_key=token()).chat.completions.create(model="gpt-4.1", messages=ASKED)

    assert answer.choices[0].message.content == TEXT
    with pytest.raises(openai.PermissionDeniedError):
        client(llm, api_key=token(scopes="chat")).models.list()


@pytest.mark.parametrize("fault", ["429", "500", "503", "401"])
def test_the_next_upstream_takes_over(llm: LitellmEdge, fault: str) -> None:
    for stream in (False, True):
        answer = post(llm, body("gpt-4.1", f"first={fault}", stream=stream))

        assert answer.status_code == 200
        assert "chat-second" in answer.text


def test_unreachable_and_untrusted_upstreams_are_passed_over(llm: LitellmEdge) -> None:
    answer = post(llm, body("gemini-2.5-flash", "second=echo"))

    seen = json.loads(answer.json()["choices"][0]["message"]["content"])
    assert seen["headers"]["host"] == "second.test:8444"
    assert seen["body"]["model"] == "flash"
    assert "dkp_" not in json.dumps(seen)


@pytest.mark.parametrize(
    ("model", "fault", "status", "code"),
    [
        ("claude-sonnet-4.5", "first=500", 502, "upstream_failed"),
        ("claude-sonnet-4.5", "first=401", 502, "upstream_denied"),
        ("claude-sonnet-4.5", "first=503", 503, "upstream_unavailable"),
        ("claude-sonnet-4.5", "first=hang", 504, "upstream_timeout"),
        ("only-refused", "", 502, "upstream_failed"),
        ("only-misnamed", "", 502, "upstream_failed"),
        ("only-untrusted", "", 502, "upstream_failed"),
    ],
)
def test_failures_are_told_as_without_litellm(
    llm: LitellmEdge, model: str, fault: str, status: int, code: str
) -> None:
    answer = post(llm, body(model, fault))

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert "litellm" not in answer.text.lower()


def test_the_callers_own_errors_keep_their_status(llm: LitellmEdge) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client(llm).chat.completions.create(model="claude-sonnet-4.5", messages=ASKED, user="first=400")
    error: Any = refused.value.body
    assert (error["message"], error["code"]) == ("first says 400", "400")
    with pytest.raises(openai.RateLimitError) as later:
        client(llm).chat.completions.create(model="claude-sonnet-4.5", messages=ASKED, user="first=429")
    assert later.value.response.headers["Retry-After"] == "7"
    # The routing of models is not revealed.
    assert not any(word in later.value.response.text for word in ("LiteLLM", "litellm", "gemini"))
    for sent, error in ((b"{", "invalid_json"), (b'{"model": "gpt-2"}', "model_not_found")):
        answer = llm.http.post(CHAT, content=sent, headers={"Authorization": f"Bearer {llm.keys['alice']}"})
        assert answer.json()["error"]["code"] == error


def test_a_cut_stream_ends_with_an_error_and_is_charged_by_estimate(llm: LitellmEdge) -> None:
    before = numbers(llm, "alice", "gpt-4.1")

    answer = post(llm, body("gpt-4.1", "first=cut", stream=True))

    assert "brown" in answer.text
    assert "[DONE]" not in answer.text
    assert '"error"' in answer.text.splitlines()[-2]
    usage = counted(llm, "gpt-4.1", before)
    assert (usage["estimated"], usage["tokens_out"] >= 3) == (1, True)


def test_the_smoke_tests_pass(llm: LitellmEdge) -> None:
    assert_smoke_tests_pass(llm)


def test_what_litellm_cannot_read_never_goes_live(llm: LitellmEdge) -> None:
    files = llm.litellm_files()
    broken = files[CONFIG].replace("num_retries: 0", "num_retries: 0\n  no_such_setting: 1", 1)
    llm.litellm.reload()
    before = llm.litellm.attrs["State"]["StartedAt"]

    with pytest.raises(ConfigurationRejectedError, match=r"the old one stays: .*no_such_setting") as refused:
        llm.change({**files, CONFIG: broken})

    assert not any(key in str(refused.value) for key in llm.upstream_keys.values())
    llm.litellm.reload()
    assert llm.litellm.attrs["State"]["StartedAt"] == before
    assert post(llm, body()).status_code == 200


def test_another_key_goes_live(llm: LitellmEdge) -> None:
    files = llm.litellm_files()
    changed = files[CONFIG].replace(llm.upstream_keys["second"], NEXT_KEY)

    llm.change({**files, CONFIG: changed})

    answer = post(llm, body("only-second", "second=which"))
    assert answer.json()["choices"][0]["message"]["content"] == "1"
    releases = llm.in_litellm("ls", f"{LITELLM_DIRECTORY}/releases").split()
    assert len(releases) == 1


def test_keys_are_nowhere(llm: LitellmEdge) -> None:
    answers = [
        post(llm, body(fault=f"first={fault}", stream=stream)).text
        for fault in ("leak", "401", "500", "html")
        for stream in (False, True)
    ]
    # LiteLLM keeps a key in an error to itself. One in an answer has to be kept back by nginx, whosever it is.
    asked = [{"role": "user", "content": " ".join(llm.upstream_keys.values())}]
    answers += [post(llm, body(fault="first=echo", messages=asked)).text]
    time.sleep(1.5)
    master = json.loads((llm.directory / "etc/dify-kit/nginx/llm/secrets.json").read_text(encoding="utf-8"))[
        "keys"
    ]["litellm"]
    processes = "cat /proc/*/cmdline /proc/*/environ 2>/dev/null; true"
    places = {
        "answers": "\n".join(answers),
        "logs": llm.nginx.logs().decode() + llm.litellm.logs().decode(),
        "nginx -T": llm.inside("nginx", "-e", "stderr", "-T", "-c", "/etc/dify-kit/nginx/nginx.conf"),
        "inspect": json.dumps([llm.client.api.inspect_container(one.id) for one in (llm.nginx, llm.litellm)]),
        "processes": llm.inside("sh", "-c", processes) + llm.in_litellm("sh", "-c", processes),
        "host's processes": "".join(str(llm.client.api.top(one.id)) for one in (llm.nginx, llm.litellm)),
        "others' view": llm.in_litellm("sh", "-c", f"cat {service.CURRENT}/{CONFIG}", user="65534"),
        "status": llm.status("/usage") + llm.status("/metrics") + llm.status("/revision"),
    }

    assert "********" in places["answers"]
    for place, text in places.items():
        assert text
        for secret in (NEXT_KEY, master, *llm.upstream_keys.values(), *llm.keys.values()):
            assert secret not in text, place
