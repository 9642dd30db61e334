"""Messages to the canary app, answered in blocking and streaming mode, which involves every service."""

import secrets

import pytest

from smoke_tests import replies, sse
from smoke_tests.chat import REMOVED, USER, Chat, least_spread
from smoke_tests.target import Target
from smoke_tests.timing import Stalls, Timing, attempt
from smoke_tests.untested import leave_out

pytestmark = pytest.mark.needs_key


@pytest.fixture
def query() -> str:
    """Return a unique text."""
    return f"smoke test {secrets.token_hex(6)}"


@pytest.fixture(scope="module")
def echoes(canary: Chat, target: Target) -> bool:
    """Whether the answer is known: the canary echoes the query, any other app may answer anything."""
    return target.asks_canary or canary.echoes_queries()


def check_answer(text: str, query: str, *, echoes: bool) -> None:
    """Check the answer of an app."""
    assert text.strip()
    if echoes:
        assert query in text


def test_blocking(chat: Chat, query: str, *, echoes: bool) -> None:
    answer = chat.send(query, mode="blocking")

    assert answer.status == 200
    body = answer.json()
    check_answer(body["answer"], query, echoes=echoes)
    assert body["conversation_id"]
    assert body["message_id"]


def test_streaming(chat: Chat, query: str, *, echoes: bool) -> None:
    answer = chat.send(query, mode="streaming")

    assert answer.status == 200
    assert (answer.header("content-type") or "").startswith("text/event-stream")
    reply = replies.read(sse.read(answer.arrivals))
    assert reply.faults == (), answer
    check_answer(reply.text, query, echoes=echoes)
    if echoes:
        # The canary gives the same answer in both modes.
        assert reply.text == chat.send(query, mode="blocking").json()["answer"]


def test_a_stream_arrives_while_it_is_made(chat: Chat, query: str) -> None:
    timing = Timing()
    while not timing.decided:
        with Stalls() as stalls:
            answer = chat.send(query, mode="streaming")
        assert answer.status == 200
        events = [event for event in sse.read(answer.arrivals) if event.data]
        assert len(events) > 1, answer
        arrivals = [answer.started + event.at for event in events]
        timing.attempts.append(attempt(arrivals, stalls.found, needed=least_spread(events)))

    assert not timing.held_back, f"a proxy buffers the stream: {timing}"
    if not timing.streamed:
        leave_out(f"this machine is too busy to time a stream: {timing}")


def test_follow_up_in_the_same_conversation(chat: Chat, query: str, *, echoes: bool) -> None:
    first = chat.send(query, mode="blocking")
    conversation = first.json()["conversation_id"]
    second = chat.send(f"{query} again", mode="blocking", conversation=conversation)

    assert second.status == 200
    assert second.json()["conversation_id"] == conversation
    check_answer(second.json()["answer"], f"{query} again", echoes=echoes)
    kept = chat.messages(conversation)
    assert kept.status == 200
    assert {one["query"] for one in kept.json()["data"]} == {query, f"{query} again"}


def test_a_deleted_conversation_is_gone(chat: Chat, query: str) -> None:
    conversation = chat.send(query, mode="blocking").json()["conversation_id"]
    deleted = chat.delete(conversation)

    assert deleted.status in REMOVED
    assert chat.messages(conversation).status == 404


def test_a_conversation_belongs_to_its_user(chat: Chat, query: str) -> None:
    conversation = chat.send(query, mode="blocking").json()["conversation_id"]

    assert chat.messages(conversation, user=f"{USER}-other").status == 404


def test_difys_own_400_comes_through(chat: Chat, target: Target) -> None:
    answer = chat.client.ask(
        "POST", f"{target.service_url}/v1/chat-messages", key=True, body={"inputs": {}, "query": "no user"}
    )

    assert answer.status == 400
    assert answer.json()["code"] == "invalid_param"
