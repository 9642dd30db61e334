"""Sends messages to the canary app through the service API and deletes the conversations afterwards."""

import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from smoke_tests import replies, sse
from smoke_tests.client import Answer, Client, VisitError

# The same in every run: Dify keeps a row for each user name it receives.
USER = "dify-kit-smoke-tests"
CANARY_NAME = "dify-kit canary"
# A later run removes the conversations of a killed run, but not those of a concurrent run.
LEFT_BEHIND_SECONDS = 3600
OK = 200
REMOVED = (200, 204)
LEAST_SPREAD_SECONDS = 0.002


def message(query: str, *, mode: str, conversation: str = "") -> dict[str, Any]:
    """Return the body of a message in `blocking` or `streaming` mode."""
    body: dict[str, Any] = {
        "inputs": {},
        "query": query,
        "response_mode": mode,
        "user": USER,
        # Naming a conversation takes a second and a model.
        "auto_generate_name": False,
    }
    return body | ({"conversation_id": conversation} if conversation else {})


def least_spread(events: Iterable[sse.Event]) -> float:
    """Return the seconds that must pass between the first and the last event of a stream.

    A buffered answer arrives in one piece. An unbuffered one takes at least a quarter of the time that
    the workflow reports, and at least the time that Dify needs to write to its database.
    """
    reported = [event.json() for event in events if event.data]
    finished = [event for event in reported if event.get("event") == "workflow_finished"]
    times = [(event.get("data") or {}).get("elapsed_time") for event in finished]
    return max(LEAST_SPREAD_SECONDS, float((times or [0])[-1] or 0) / 4)


@dataclass(kw_only=True)
class Chat:
    """An app behind a key; records the conversations it starts."""

    client: Client = field(repr=False)
    url: str
    open: set[str] = field(default_factory=set)

    def send(self, query: str, *, mode: str, conversation: str = "", **headers: str) -> Answer:
        """Send a message in `blocking` or `streaming` mode; an empty conversation starts a new one."""
        body = message(query, mode=mode, conversation=conversation)
        answer = self.client.ask("POST", f"{self.url}/v1/chat-messages", key=True, body=body, headers=headers)
        if found := _conversation_of(answer):
            self.open.add(found)
        return answer

    def messages(self, conversation: str, *, user: str = USER) -> Answer:
        """List the messages of a conversation, as its user or as another."""
        return self.client.ask(
            "GET", f"{self.url}/v1/messages?user={user}&conversation_id={conversation}&limit=20", key=True
        )

    def delete(self, conversation: str) -> Answer:
        """Delete a conversation; 404, already deleted, is accepted."""
        answer = self.client.ask(
            "DELETE", f"{self.url}/v1/conversations/{conversation}", key=True, body={"user": USER}
        )
        self.open.discard(conversation)
        return answer

    def delete_open(self) -> list[str]:
        """Delete every recorded conversation; return those that could not be deleted."""
        failed = []
        for conversation in sorted(self.open):
            try:
                answer = self.delete(conversation)
            except VisitError as problem:
                failed.append(f"{conversation}: {problem}")
            else:
                if answer.status not in {*REMOVED, 404}:
                    failed.append(f"{conversation}: {answer!r}")
        self.open.clear()
        return failed

    def delete_left_behind(self) -> None:
        """Delete conversations older than an hour that a killed run left behind."""
        listed = self.client.ask("GET", f"{self.url}/v1/conversations?user={USER}&limit=50", key=True)
        if listed.status != OK:
            return
        old = time.time() - LEFT_BEHIND_SECONDS
        self.open |= {
            str(uuid.UUID(one["id"]))
            for one in listed.json().get("data", [])
            if one.get("created_at", old) < old
        }

    def echoes_queries(self) -> bool:
        """Return whether this is the kit's canary, whose answers are known."""
        answer = self.client.ask("GET", f"{self.url}/v1/info", key=True)
        return answer.status == OK and answer.json().get("name") == CANARY_NAME


def _conversation_of(answer: Answer) -> str:
    """Return the conversation id of an answer in either mode; empty when there is none."""
    if answer.status != OK:
        return ""
    try:
        if "event-stream" in (answer.values("content-type") or [""])[0]:
            return replies.read(sse.read(answer.arrivals)).conversation
        return str(answer.json().get("conversation_id") or "")
    except (ValueError, AttributeError, VisitError):
        return ""


@contextmanager
def cleaning_up(chat: Chat) -> Iterator[Chat]:
    """Give the chat to a test and delete its conversations afterwards, also when the test fails."""
    try:
        yield chat
    finally:
        failed = chat.delete_open()
        if failed:
            raise AssertionError(f"conversations of the smoke tests are still there: {failed}")
