"""A conversation, as a client of the service API has one."""

import secrets

import httpx

from smoke_tests.client import USER, events, question


def test_blocking_chat_answers(caller: httpx.Client) -> None:
    word = secrets.token_hex(4)

    response = caller.post("/v1/chat-messages", json=question(word))

    assert response.status_code == httpx.codes.OK
    answer = response.json()
    assert answer["event"] == "message"
    assert word in answer["answer"]
    assert answer["conversation_id"]


def test_conversation_goes_on_and_can_be_deleted(caller: httpx.Client) -> None:
    first = caller.post("/v1/chat-messages", json=question("first")).json()
    conversation = first["conversation_id"]

    second = caller.post("/v1/chat-messages", json=question("second", conversation=conversation)).json()
    listed = caller.get("/v1/messages", params={"user": USER, "conversation_id": conversation}).json()
    deleted = caller.request("DELETE", f"/v1/conversations/{conversation}", json={"user": USER})
    gone = caller.get("/v1/messages", params={"user": USER, "conversation_id": conversation})

    assert second["conversation_id"] == conversation
    assert {message["query"] for message in listed["data"]} == {"first", "second"}
    assert deleted.status_code in {httpx.codes.OK, httpx.codes.NO_CONTENT}
    assert gone.status_code == httpx.codes.NOT_FOUND


def test_streaming_chat_sends_events_to_the_end(caller: httpx.Client) -> None:
    word = secrets.token_hex(4)

    with caller.stream("POST", "/v1/chat-messages", json=question(word, mode="streaming")) as response:
        received = list(events(response))

    assert response.status_code == httpx.codes.OK
    assert response.headers["content-type"].startswith("text/event-stream")
    names = [event.name for event in received]
    assert names[-1] == "message_end"
    said = "".join(event.data["answer"] for event in received if event.name in {"message", "agent_message"})
    assert word in said


def test_streamed_answer_is_not_held_back(caller: httpx.Client) -> None:
    # A buffering proxy would send the length, or everything in one piece at the end.
    with caller.stream("POST", "/v1/chat-messages", json=question("hello", mode="streaming")) as response:
        received = list(events(response))

    assert "content-length" not in response.headers
    assert len(received) > 1


def test_conversations_of_another_user_are_not_visible(caller: httpx.Client) -> None:
    conversation = caller.post("/v1/chat-messages", json=question("mine")).json()["conversation_id"]

    response = caller.get(
        "/v1/messages", params={"user": f"{USER}-stranger", "conversation_id": conversation}
    )

    assert response.status_code == httpx.codes.NOT_FOUND
