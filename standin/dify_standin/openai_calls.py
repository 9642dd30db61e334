"""What a plugin for OpenAI-compatible endpoints sends: a ping to validate a credential, chats, and embeddings.

The requests go out from the plugin daemon's container, over its networks, with its proxy settings and its CA.
"""

import http.client
import json
import socket
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

Json = dict[str, Any]

SECONDS = 300.0
# One token is about four characters, where the endpoint counts none.
CHARACTERS = 4
OPENAI = "https://api.openai.com"


class UpstreamError(Exception):
    """The endpoint did not answer as it must. `status` is None when it did not answer at all."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a model is, and the key to it."""

    url: str
    key: str
    model: str
    sends_user: bool = True
    asks_usage: bool = True

    @classmethod
    def of(cls, credentials: Mapping[str, Any], model: str) -> "Endpoint":
        """Read a credential: that of a customizable model, or that of a provider whose base has no `/v1`."""
        base = str(credentials.get("endpoint_url") or "").rstrip("/")
        if not base:
            base = str(credentials.get("openai_api_base") or OPENAI).rstrip("/") + "/v1"
        return cls(
            url=base,
            key=str(credentials.get("api_key") or credentials.get("openai_api_key") or ""),
            model=str(credentials.get("endpoint_model_name") or model),
            sends_user=credentials.get("user_identity_support", "support") == "support",
            asks_usage=credentials.get("stream_include_usage", "enabled") == "enabled",
        )

    def post(self, path: str, body: Json) -> http.client.HTTPResponse:
        """Send a request and return its answer, still open. Raises UpstreamError for any that is not 200."""
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        url = f"{self.url}/{path}"
        if not url.startswith(("http://", "https://")):
            raise UpstreamError(f"Invalid URL '{url}': No scheme supplied. Perhaps you meant https://{url}?")
        called = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers)  # noqa: S310  # checked
        try:
            answer: http.client.HTTPResponse = urllib.request.urlopen(called, timeout=SECONDS)  # noqa: S310  # checked
        except HTTPError as refusal:
            with refusal:
                raise UpstreamError(refusal.read().decode("utf-8", "replace"), refusal.code) from None
        except (OSError, http.client.HTTPException) as problem:
            raise UpstreamError(_unreachable(url, problem)) from None
        if answer.status != HTTPStatus.OK:
            with answer:
                raise UpstreamError(answer.read().decode("utf-8", "replace"), answer.status)
        return answer


def _unreachable(url: str, problem: Exception) -> str:
    """Return the text of urllib3 for a connection that could not be made."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    reason = problem.reason if isinstance(problem, URLError) else problem
    pool = f"HTTP{'S' if parts.scheme == 'https' else ''}Connection"
    at = f"{pool}(host='{parts.hostname}', port={port})"
    text = str(reason)
    if isinstance(reason, socket.gaierror):
        cause = f"NameResolutionError(\"{at}: Failed to resolve '{parts.hostname}' ({text})\")"
    elif isinstance(reason, TimeoutError):
        cause = f"ConnectTimeoutError({at}, 'Connection to {parts.hostname} timed out.')"
    else:
        cause = f'NewConnectionError("{at}: Failed to establish a new connection: {text}")'
    return (
        f"{pool}Pool(host='{parts.hostname}', port={port}): Max retries exceeded with url: {parts.path} "
        f"(Caused by {cause})"
    )


def _json(answer: http.client.HTTPResponse) -> Json:
    with answer:
        try:
            found = json.loads(answer.read())
        except (ValueError, OSError, http.client.HTTPException):
            raise UpstreamError("the endpoint's answer is no JSON", HTTPStatus.OK) from None
    if not isinstance(found, dict):
        raise UpstreamError("the endpoint's answer is no JSON object", HTTPStatus.OK)
    return found


def ping(endpoint: Endpoint, model_type: str) -> None:
    """Validate a credential by a request of the model's type. Raises UpstreamError."""
    if model_type == "text-embedding":
        found = _json(endpoint.post("embeddings", {"model": endpoint.model, "input": ["ping"]}))
        if not found.get("data"):
            raise UpstreamError("the endpoint returned no embedding", HTTPStatus.OK)
        return
    body = {"model": endpoint.model, "max_tokens": 5, "messages": [{"role": "user", "content": "ping"}]}
    if not _json(endpoint.post("chat/completions", body)).get("choices"):
        raise UpstreamError("the endpoint returned no choices", HTTPStatus.OK)


def embed(endpoint: Endpoint, texts: list[str], encoding: str | None) -> tuple[list[list[float]], Json]:
    """Return a vector for each text, and the usage. Raises UpstreamError."""
    body: Json = {"model": endpoint.model, "input": texts}
    if encoding and encoding != "not_set":
        body["encoding_format"] = encoding
    found = _json(endpoint.post("embeddings", body))
    rows = sorted(found.get("data") or [], key=lambda one: one.get("index", 0))
    if len(rows) != len(texts):
        raise UpstreamError(
            f"the endpoint returned {len(rows)} embeddings for {len(texts)} texts", HTTPStatus.OK
        )
    return [[float(value) for value in one["embedding"]] for one in rows], found.get("usage") or {}


def chat(
    endpoint: Endpoint, messages: list[Json], parameters: Json, user: str | None, *, stream: bool
) -> Iterator[Json]:
    """Yield an answer's pieces: `content`, then one with `finish_reason`, then one with `usage`.

    Raises UpstreamError.
    """
    body: Json = {"model": endpoint.model, "messages": messages, "stream": stream, **parameters}
    if stream and endpoint.asks_usage:
        body["stream_options"] = {"include_usage": True}
    if user and endpoint.sends_user:
        body["user"] = user
    answer = endpoint.post("chat/completions", body)
    pieces = _streamed(answer) if stream else _whole(_json(answer))
    said, usage, reason = "", None, "stop"
    for piece in pieces:
        if content := piece.get("content"):
            said += content
            yield {"content": content}
        reason = piece.get("finish_reason") or reason
        usage = piece.get("usage") or usage
    yield {"content": "", "finish_reason": reason}
    yield {"content": "", "usage": usage or _estimated(messages, said)}


def _whole(found: Json) -> Iterator[Json]:
    choice = (found.get("choices") or [{}])[0]
    yield {
        "content": (choice.get("message") or {}).get("content") or "",
        "finish_reason": choice.get("finish_reason"),
        "usage": found.get("usage"),
    }


def _streamed(answer: http.client.HTTPResponse) -> Iterator[Json]:
    try:
        with answer:
            for line in answer:
                text = line.decode("utf-8", "replace").strip()
                if not text.startswith("data:"):
                    continue
                data = text.removeprefix("data:").strip()
                if data == "[DONE]":
                    return
                yield from _delta(json.loads(data))
    except (ValueError, OSError, http.client.HTTPException) as problem:
        raise UpstreamError(f"the stream of the endpoint broke: {problem}") from None


def _delta(event: Json) -> Iterator[Json]:
    if event.get("error"):
        raise UpstreamError(json.dumps(event), HTTPStatus.OK)
    for choice in event.get("choices") or []:
        yield {
            "content": (choice.get("delta") or {}).get("content"),
            "finish_reason": choice.get("finish_reason"),
        }
    yield {"usage": event.get("usage")}


def _estimated(messages: list[Json], said: str) -> Json:
    asked = sum(len(str(one.get("content") or "")) for one in messages)
    return {"prompt_tokens": asked // CHARACTERS + 1, "completion_tokens": len(said) // CHARACTERS + 1}
