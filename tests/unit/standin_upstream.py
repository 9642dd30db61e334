"""An endpoint that speaks the OpenAI schema as the recorded one did, and packages like the recorded ones."""

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import yaml

from support.serving import served

# What the recorded package of the second provider may do.
KINDS = ("enabled", "llm", "text_embedding", "tts", "speech2text", "moderation")
KEY = "dkp_0123456789abcdefghijklmnop"
SERVED = ("gpt-4.1", "text-embedding-3-small")
USAGE = {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}
MARKETPLACE = Path(__file__).resolve().parents[2] / "standin/dify_standin/marketplace"

# Fields of the recorded package that the stand-in's own does not have.
_OF_SPEECH = {"required": False, "show_on": [{"variable": "__model_type", "value": "speech2text"}]}
SPEECH: tuple[dict[str, Any], ...] = (
    {
        **_OF_SPEECH,
        "variable": "language",
        "label": "Language",
        "type": "select",
        "default": "zh",
        "options": [{"label": one, "value": one} for one in ("zh", "en", "ja", "ko")],
    },
    {**_OF_SPEECH, "variable": "initial_prompt", "label": "Prompt", "type": "text-input"},
)

RERANK = {
    "variable": "context_size",
    "label": "Context",
    "type": "text-input",
    "required": True,
    "default": "4096",
    "show_on": [{"variable": "__model_type", "value": "rerank"}],
}


def _error(message: str, kind: str, param: str | None, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


UNAUTHORIZED = _error("Authentication is required.", "authentication_error", None, "unauthorized")
NOT_SERVED = _error("The model is not served here.", "invalid_request_error", "model", "model_not_found")
NOTHING = _error("There is nothing here.", "invalid_request_error", None, "not_found")


@dataclass
class Upstream:
    """The endpoint: its URL, and the requests that it was sent."""

    url: str = ""
    keys: set[str] = field(default_factory=lambda: {KEY})
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    fails_with: int | None = None

    def chats(self) -> list[dict[str, Any]]:
        """Return the bodies of the chats that were asked for."""
        return [body for path, body in self.asked if path.endswith("/chat/completions")]


def answered(upstream: Upstream, path: str, key: str, body: dict[str, Any]) -> tuple[int, Any]:
    """Return status and answer of a request; a stream's answer is a list of events."""
    if upstream.fails_with:
        return upstream.fails_with, _error("Broken.", "server_error", None, "broken")
    if key.removeprefix("Bearer ") not in upstream.keys:
        return 401, UNAUTHORIZED
    if path.endswith("/embeddings"):
        data = [{"index": n, "embedding": vector(text)} for n, text in enumerate(body["input"])]
        return 200, {"object": "list", "data": data, "usage": {"prompt_tokens": 3, "total_tokens": 3}}
    if not path.endswith("/chat/completions"):
        return 404, NOTHING
    return (200, chat(body)) if body["model"] in SERVED else (404, NOT_SERVED)


def chat(body: dict[str, Any]) -> Any:
    """Return a chat, or its events."""
    text = f"mock {body['model']} heard: {body['messages'][-1]['content']}"
    if not body.get("stream"):
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return {"object": "chat.completion", "choices": [choice], "usage": USAGE}
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": ""},
        {"content": text[:10]},
        {"content": text[10:]},
    ]
    events: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
    ]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        events.append({"choices": [], "usage": USAGE})
    return events


def vector(text: str) -> list[float]:
    """Return the letters of a text, counted: texts with the same words are near to each other."""
    return [float(text.lower().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"]


@contextmanager
def listening(address: str = "127.0.0.1") -> Iterator[Upstream]:
    """Serve the endpoint on a free port of an address."""
    upstream = Upstream()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            upstream.asked.append((self.path, body))
            status, answer = answered(upstream, self.path, self.headers.get("Authorization", ""), body)
            self.send_response(status)
            streamed = isinstance(answer, list)
            self.send_header("Content-Type", "text/event-stream" if streamed else "application/json")
            self.send_header("Connection", "close")
            self.end_headers()
            if not streamed:
                self.wfile.write(json.dumps(answer, separators=(",", ":")).encode())
                return
            for event in answer:
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
                self.wfile.flush()
            self.wfile.write(b"data: [DONE]\n\n")

    with served(Handler, address) as url:
        upstream.url = f"{url}/llm/v1"
        yield upstream


def archive(files: dict[str, str], *, signed: bool, salt: str = "") -> bytes:
    """Return a package. `salt` makes another file of the same content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, text in files.items():
            made.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), text)
        made.writestr(zipfile.ZipInfo("salt", (2026, 1, 1, 0, 0, 0)), salt)
        if signed:
            made.comment = b'{"signature": "c2lnbmVk", "time": 1}'
    return buffer.getvalue()


def compatible(version: str, *, signed: bool = False, salt: str = "") -> bytes:
    """Return a package of the provider for OpenAI-compatible endpoints."""
    manifest = yaml.safe_load((MARKETPLACE / "manifest.yaml").read_text(encoding="utf-8"))
    manifest |= {"version": version, "icon": "icon.svg"}
    manifest["resource"]["permission"] = {"tool": {"enabled": True}, "model": {"enabled": True, "llm": True}}
    name = "provider/openai_api_compatible.yaml"
    provider = yaml.safe_load((MARKETPLACE / name).read_text(encoding="utf-8"))
    provider["icon_small"] = {"en_US": "icon.svg"}
    provider["supported_model_types"] = ["llm", "rerank", "text-embedding", "speech2text", "tts"]
    form = provider["model_credential_schema"]["credential_form_schemas"]
    form[2:2] = [dict(one) for one in SPEECH]
    form.insert(12, RERANK)
    files = {"manifest.yaml": yaml.safe_dump(manifest), name: yaml.safe_dump(provider)}
    return archive(files, signed=signed, salt=salt)


def openai(version: str, *, salt: str = "") -> bytes:
    """Return a package of a provider that lists its models by itself."""
    manifest = {
        "version": version,
        "type": "plugin",
        "author": "langgenius",
        "name": "openai",
        "label": {"en_US": "OpenAI"},
        "description": {"en_US": "A provider with models of its own."},
        "icon": "icon.svg",
        "created_at": "2026-01-01T00:00:00Z",
        "resource": {
            "memory": 1,
            "permission": {"tool": {"enabled": True}, "model": dict.fromkeys(KINDS, True)},
        },
        "plugins": {"models": ["provider/openai.yaml"]},
    }
    provider = {
        "provider": "openai",
        "label": {"en_US": "OpenAI"},
        "description": {"en_US": "Models of one vendor."},
        "icon_small": {"en_US": "icon.svg"},
        "supported_model_types": ["llm", "text-embedding", "speech2text", "moderation", "tts"],
        "configurate_methods": ["predefined-model", "customizable-model"],
        "provider_credential_schema": {
            "credential_form_schemas": [
                {"variable": "openai_api_key", "label": "Key", "type": "secret-input", "required": True},
                {"variable": "openai_api_base", "label": "Base", "type": "text-input", "required": False},
                {
                    "variable": "validate_model",
                    "label": "Model to try",
                    "type": "text-input",
                    "required": False,
                    "default": "gpt-4o-mini",
                },
                _options("api_protocol", "responses", "chat"),
                _options("enable_request_metadata", "disabled", "enabled"),
            ]
        },
        "models": {"llm": {"predefined": ["models/llm/*.yaml"]}},
    }
    files = {"manifest.yaml": yaml.safe_dump(manifest), "provider/openai.yaml": yaml.safe_dump(provider)}
    features = ["multi-tool-call", "agent-thought", "stream-tool-call", "vision", "structured-output"]
    for name, context in (("gpt-4.1", 1047576), ("gpt-5.6", 1050000)):
        model = {
            "model": name,
            "label": {"en_US": name},
            "model_type": "llm",
            "features": features,
            "model_properties": {"mode": "chat", "context_size": context},
            "pricing": {"input": "2.00", "output": "8.00", "unit": "0.000001", "currency": "USD"},
        }
        files[f"models/llm/{name}.yaml"] = yaml.safe_dump(model)
    return archive(files, signed=False, salt=salt)


def _options(variable: str, default: str, other: str) -> dict[str, Any]:
    options = [{"label": value, "value": value} for value in (default, other)]
    field: dict[str, Any] = {"variable": variable, "label": variable, "type": "select", "required": False}
    return {**field, "default": default, "options": options}
