"""What real releases answered, and how their requests are sent again: the apps, the credentials, the bodies.

A body is compared whole, but for ids, times and durations, which take the form `id 1`, `time` and `seconds`: the same
id has the same number wherever it stands.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from infra.settings.apps import app_file
from tests.contract.instance import FILE_UPLOAD, Instance, of_small_dify
from tests.integration.small_dify import SmallDify

FACTS = Path(__file__).resolve().parents[1] / "facts"
OLD, NEW = "1.12.1", "1.17.1"
# Recordings by the release that has to repeat them. The second is of upstream's code eight days before 1.17.0.
FILES = {OLD: "answers-1.12.1.jsonl", NEW: "answers-1.17-pre.jsonl"}
# The variables that the recorded instances ran with, where they show in answers.
RELEASES: dict[str, dict[str, str]] = {
    OLD: {"FILES_URL": "", "EDITION": "SELF_HOSTED"},
    "1.14.2": {"FILES_URL": "http://localhost:18100", "EDITION": "SELF_HOSTED"},
    NEW: {
        "FILES_URL": "http://localhost:18100",
        "DEPLOYMENT_EDITION": "COMMUNITY",
        **dict.fromkeys(
            ("UPLOAD_IMAGE_FILE_SIZE_LIMIT", "UPLOAD_VIDEO_FILE_SIZE_LIMIT", "UPLOAD_AUDIO_FILE_SIZE_LIMIT"),
            "15",
        ),
    },
}
SAME = {"inputs": {}, "query": "hello", "response_mode": "blocking", "user": "u1"}
CODE = "import platform\n\ndef main(q):\n    return {'result': f'code:{q} py{platform.python_version()}'}\n"

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SIGNED = re.compile(r"timestamp=\d+&nonce=[0-9a-f]+&sign=[^&]+")
_PYTHON = re.compile(r"py\d+\.\d+\.\d+")
_SOME_TIME_AGO = 1_000_000_000
_DURATIONS = {"elapsed_time", "time_to_first_token", "time_to_generate", "latency"}

Recorded = dict[str, Any]


def recorded(release: str) -> list[Recorded]:
    """Return the requests of a release and their answers."""
    return [
        json.loads(line) for line in (FACTS / FILES[release]).read_text(encoding="utf-8").splitlines() if line
    ]


def chat_app(release: str) -> str:
    """Return the chat app that a release was asked with."""
    document = yaml.safe_load(app_file("echo-chat").read_text(encoding="utf-8"))
    app, workflow = document["app"], document["workflow"]
    app["description"] = "Repeats what you say (managed by dify-kit: echo-chat)"
    if release == OLD:
        app |= {"name": "echo-chat", "description": "echo-chat"}
        app |= {"icon": "\N{ROBOT FACE}", "icon_background": "#FFEAD5"}
        workflow["features"] |= {"opening_statement": "hi", "file_upload": FILE_UPLOAD}
        for node in workflow["graph"]["nodes"]:
            node["data"]["title"] = node["data"]["title"].lower()
    return yaml.safe_dump(document)


def workflow_app(release: str) -> str:
    """Return the workflow app that a release was asked with: its input given back, later through a code node."""
    document = yaml.safe_load(app_file("echo-chat").read_text(encoding="utf-8"))
    document["app"] |= {"mode": "workflow", "name": "echo-workflow"}
    graph = document["workflow"]["graph"]
    start, end = graph["nodes"]
    edge = graph["edges"][0]
    start["data"]["variables"] = [
        {"variable": "query", "label": "query", "type": "paragraph", "required": True}
    ]
    end["id"] = "end"
    if release == OLD:
        start["data"]["title"] = "start"
        outputs = [{"variable": "out", "value_selector": ["start", "query"]}]
        end["data"] = {"type": "end", "title": "end", "outputs": outputs}
        edge["target"] = "end"
        return yaml.safe_dump(document)
    asks = [{"variable": "q", "value_selector": ["start", "query"]}]
    data: dict[str, Any] = {
        "type": "code",
        "title": "Code",
        "code_language": "python3",
        "code": CODE,
        "variables": asks,
    }
    data["outputs"] = {"result": {"type": "string", "children": None}}
    outputs = [{"variable": "result", "value_selector": ["code", "result"]}]
    end["data"] = {"type": "end", "title": "End", "outputs": outputs}
    graph["nodes"].insert(1, {**start, "id": "code", "data": data})
    graph["edges"] = [
        {**edge, "id": f"{source}-{target}", "source": source, "target": target}
        for source, target in (("start", "code"), ("code", "end"))
    ]
    return yaml.safe_dump(document)


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """An instance of a release, and the keys of the apps that the release was asked with."""

    instance: Instance
    keys: Mapping[str, str]


class Speakers:
    """Small instances, one of each release, started when they are first asked for."""

    def __init__(self) -> None:
        self._started: dict[str, SmallDify] = {}
        self._ready: dict[str, Speaker] = {}

    def of(self, release: str) -> Speaker:
        """Return the one of a release."""
        if release not in self._ready:
            self._started[release] = dify = SmallDify(release=release, variables=RELEASES[release])
            dify.start()
            dify.start_worker()
            one = of_small_dify(dify)
            apps = {"chat": chat_app(release), "workflow": workflow_app(release)}
            keys = {name: one.key(one.import_app(dsl)) for name, dsl in apps.items()}
            self._ready[release] = Speaker(instance=one, keys=keys)
        return self._ready[release]

    def remove(self) -> None:
        """Remove them, however far they came."""
        for dify in self._started.values():
            dify.remove()


def send(speaker: Speaker, request: Recorded, case: str) -> httpx.Response:
    """Send a recorded request again."""
    headers = headers_of(request["credential"], speaker.keys)
    arguments = body_of(request["body"], case)
    if "content" in arguments:
        headers.setdefault("Content-Type", "application/json")
    return speaker.instance.api.request(request["method"], request["path"], headers=headers, **arguments)


def headers_of(credential: str, keys: Mapping[str, str]) -> dict[str, str]:
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


class Comparable:
    """Makes bodies comparable. One object for everything in which the same ids have to be the same."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}

    def of(self, value: Any, name: str = "") -> Any:
        """Return a value without what differs each time."""
        if isinstance(value, dict):
            # In one order, so that ids are numbered alike whatever the order of the fields.
            return {key: self.of(value[key], key) for key in sorted(value)}
        if isinstance(value, list):
            return [self.of(one) for one in value]
        if name in _DURATIONS and isinstance(value, int | float):
            return "seconds"
        if isinstance(value, int) and not isinstance(value, bool) and value > _SOME_TIME_AGO:
            return "time"
        return self._text(value) if isinstance(value, str) else value

    def _text(self, value: str) -> str:
        numbered = _UUID.sub(lambda found: self._ids.setdefault(found[0], f"id {len(self._ids)}"), value)
        return _PYTHON.sub("py3", _SIGNED.sub("signed", numbered))


def events(text: str) -> list[str]:
    """Return the complete events of a stream; a recording may be cut at some length."""
    return text.split("\n\n")[:-1]


def comparable_events(found: list[str]) -> list[Any]:
    """Return a stream's events as they can be compared; a ping is itself."""
    same = Comparable()
    return [
        same.of(json.loads(event.removeprefix("data: "))) if event.startswith("data: ") else event
        for event in found
        if event
    ]
