"""The LLM proxy as its callers see it: its addresses, its models and the format of its errors."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from smoke_tests.client import Answer
from smoke_tests.masking import Secret
from smoke_tests.sse import Event, Reader

# Keys of providers and callers, and bearer credentials. No export contains the upstream's key.
PROVIDER_KEY = re.compile(r"\b(?:sk|hs|dkp)-?[-_][A-Za-z0-9_-]{16,}|\bBearer [A-Za-z0-9._-]{16,}")
FOREIGN_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "x-api-key", "api-key", "set-cookie", "openai-organization"}
)


@dataclass(frozen=True, kw_only=True)
class Llm:
    """The proxy: `url` ends in `/llm/v1`, `short_url` is `/api/chat`; `models` are all the models it serves.

    `key` is a caller's, None without one; `chat_model` names the model to ask for an answer, empty for none.
    """

    url: str
    short_url: str
    models: tuple[str, ...]
    origins: tuple[str, ...]
    key: Secret | None = None
    chat_model: str = ""


def error_problems(answer: Answer, status: int, kind: str = "") -> list[str]:
    """Return why an answer is not an error of OpenAI's format; empty when it is."""
    if answer.status != status:
        return [f"{status} expected: {answer!r}"]
    if not (answer.header("content-type") or "").startswith("application/json"):
        return [f"the body of the error is not JSON: {answer!r}"]
    body = answer.json()
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return [f"error.message, which OpenAI's clients show, is missing: {answer!r}"]
    missing = {"type", "param", "code"} - error.keys()
    found = [f"error lacks {', '.join(sorted(missing))}: {answer!r}"] if missing else []
    if kind and error.get("type") != kind:
        found.append(f"error.type {kind} expected: {answer!r}")
    return found


def leaks(answer: Answer) -> list[str]:
    """Return the names of headers that reveal the upstream or a key; values are not repeated."""
    return sorted(
        {
            name
            for name, value in answer.headers
            if name in FOREIGN_HEADERS or (name != "www-authenticate" and PROVIDER_KEY.search(value))
        }
    )


def events(answer: Answer) -> Iterator[Event]:
    """Return the events of a stream."""
    reader = Reader()
    for at, piece in answer.arrivals:
        yield from reader.feed(piece, at)
