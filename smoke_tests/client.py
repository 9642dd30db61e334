"""A caller from outside: with deadlines, and patient where the server asks for patience."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

TIMEOUT_SECONDS = 20.0
# An operator's limits may be tight; a smoke test waits as it is told, but not for ever.
LONGEST_WAIT_SECONDS = 30.0
TRIES = 3
USER = "dify-kit-smoke-test"


class PatientTransport(httpx.HTTPTransport):
    """Waits and tries again when the server answers 429 with a Retry-After that is short enough."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request, at most three times."""
        response = super().handle_request(request)
        for _ in range(TRIES - 1):
            if response.status_code != httpx.codes.TOO_MANY_REQUESTS:
                return response
            asked = response.headers.get("retry-after", "")
            if not asked.isdigit() or int(asked) > LONGEST_WAIT_SECONDS:
                return response
            response.close()
            time.sleep(int(asked))
            response = super().handle_request(request)
        return response


def make_client(url: str, *, verify: bool = True) -> httpx.Client:
    """Return a client for an environment. It follows no redirect: a redirect is an answer to look at."""
    return httpx.Client(
        base_url=url, timeout=TIMEOUT_SECONDS, transport=PatientTransport(verify=verify, retries=0)
    )


@dataclass(frozen=True, kw_only=True)
class Event:
    """One server-sent event: when it arrived (monotonic seconds) and its parsed data."""

    at: float
    data: dict[str, Any]

    @property
    def name(self) -> str:
        """Dify's name of the event, which it puts into the data."""
        return str(self.data.get("event", ""))


def events(response: httpx.Response) -> Iterator[Event]:
    """Read server-sent events as the standard says: fields by line, an empty line ends an event."""
    lines: list[str] = []
    for line in response.iter_lines():
        if line.startswith("data:"):
            lines.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and lines:
            yield Event(at=time.monotonic(), data=json.loads("\n".join(lines)))
            lines = []
    if lines:
        raise ValueError("the stream ended in the middle of an event")


def question(query: str, mode: str = "blocking", conversation: str = "") -> dict[str, Any]:
    """Return the body of a chat message from the smoke tests' own user."""
    return {
        "inputs": {},
        "query": query,
        "user": USER,
        "response_mode": mode,
        "conversation_id": conversation,
        "auto_generate_name": False,
    }
