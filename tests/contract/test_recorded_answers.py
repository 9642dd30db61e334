"""Each recorded request again: the same status, the same headers, the same body but for ids and times."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.instance import Instance, workflow_dsl

RECORDED = [
    json.loads(line) for line in Path(__file__).with_name("dify-answers.jsonl").read_text().splitlines()
]
SAME = {"inputs": {}, "query": "hello", "response_mode": "blocking", "user": "u1"}
KEY_ORDER = ("chat key", "workflow key", "workflow app's key")
IDENTITY = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# Names, not contract: the recorded app and the release of the recording.
MASKED = {"X-Version"}
COMPARED = (
    "Content-Type",
    "WWW-Authenticate",
    "Access-Control-Allow-Origin",
    "Access-Control-Allow-Credentials",
    "Access-Control-Expose-Headers",
)


@pytest.fixture(scope="module")
def keys(instance: Instance) -> dict[str, str]:
    """A key of a chat app and one of a workflow app, as in the recording."""
    return {"chat": instance.chat_app()[1], "workflow": instance.key(instance.import_app(workflow_dsl()))}


def headers_of(credential: str, keys: dict[str, str]) -> dict[str, str]:
    """Return the request headers that a recorded credential stands for."""
    if credential == "no Authorization":
        return {}
    if credential.startswith("Authorization: "):
        value = credential.removeprefix("Authorization: ")
        value = value.replace("<key> without scheme", keys["chat"]).replace("<key>", keys["chat"])
        return {"Authorization": value.replace(" and nothing", "")}
    key = keys["workflow"] if credential.startswith("workflow") else keys["chat"]
    found = {"Authorization": f"Bearer {key}"}
    if "Origin: " in credential:
        found["Origin"] = credential.split("Origin: ")[1]
    if "Content-Type: " in credential:
        found["Content-Type"] = credential.split("Content-Type: ")[1]
    if "JSON content type" in credential:
        found["Content-Type"] = "application/json"
    return found


def body_of(body: Any, case: str) -> dict[str, Any]:
    """Return httpx's arguments for a recorded body."""
    if body is None:
        return {}
    if body == "same":
        inputs = {"query": "hey"} if case.startswith("wf") else {}
        return {"content": json.dumps(SAME | {"inputs": inputs}).encode()}
    if body == "empty":
        return {"content": b""}
    if isinstance(body, str) and body.startswith("multipart"):
        size = 16_000_000 if "16,000,000" in body else 6
        files = {"file": ("t.txt", b"x" * size, "text/plain")} if "file" in body else None
        data = {"user": "u1"} if "user=u1" in body else {}
        return {"files": files, "data": data} if files else {"files": {"user": (None, "u1")}}
    return {"content": (body if isinstance(body, str) else json.dumps(body)).encode()}


def send(instance: Instance, recorded: dict[str, Any], keys: dict[str, str]) -> httpx.Response:
    request = recorded["request"]
    headers = headers_of(request["credential"], keys)
    arguments = body_of(request["body"], recorded["case"])
    if "content" in arguments:
        headers.setdefault("Content-Type", "application/json")
    return instance.api.request(request["method"], request["path"], headers=headers, **arguments)


def shape(value: Any) -> Any:
    """Return the structure of a body: keys and types, without values that differ each time."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shape(one) for one in value[:1]]
    return type(value).__name__ if not isinstance(value, int | float) or isinstance(value, bool) else "number"


def events(text: str) -> list[dict[str, Any]]:
    """Return the complete events of a stream; the recordings are cut at some length."""
    found = []
    for part in text.split("\n\n"):
        if part.startswith("data: "):
            try:
                found.append(json.loads(part.removeprefix("data: ")))
            except ValueError:
                break
    return found


@pytest.mark.parametrize("recorded", RECORDED, ids=[one["case"] for one in RECORDED])
def test_answer_is_the_recorded_one(
    instance: Instance, keys: dict[str, str], recorded: dict[str, Any]
) -> None:
    answer = send(instance, recorded, keys)

    assert answer.status_code == recorded["status"], answer.text[:500]
    for name in COMPARED:
        assert answer.headers.get(name) == recorded["headers"].get(name), name
    assert answer.headers["X-Env"] == recorded["headers"]["X-Env"]
    assert answer.headers["X-Version"] == instance.stack.release
    if "Origin" in recorded["headers"].get("Vary", ""):
        assert "Origin" in answer.headers["Vary"]
    if recorded["headers"]["Content-Type"].startswith("text/event-stream"):
        return
    if not recorded["headers"]["Content-Type"].startswith("application/json"):
        assert answer.text.strip() == recorded["body"].strip()
        return
    expected = json.loads(recorded["body"])
    if recorded["status"] >= httpx.codes.BAD_REQUEST:
        # Errors are what clients branch on: every word counts.
        assert answer.json() == expected
    else:
        assert shape(answer.json()) == shape(expected)


@pytest.mark.parametrize("case", ["streaming", "wf run streaming"])
def test_stream_has_the_recorded_events(instance: Instance, keys: dict[str, str], case: str) -> None:
    recorded = next(one for one in RECORDED if one["case"] == case)

    received = events(send(instance, recorded, keys).text)

    by_name = {event["event"]: event for event in received}
    for expected in events(recorded["body"]):
        event = by_name[expected["event"]]
        assert set(event) == set(expected), expected["event"]
        if isinstance(expected.get("data"), dict):
            assert set(event["data"]) == set(expected["data"]), expected["event"]
    names = [event["event"] for event in received]
    assert names[0] == "workflow_started"
    assert names[-1] == ("message_end" if case == "streaming" else "workflow_finished")
