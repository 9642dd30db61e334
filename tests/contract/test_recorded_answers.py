"""Each recorded request again, to its release: the same status, headers and body, but for ids and times."""

import json
from collections.abc import Mapping

import httpx
import pytest

from smoke_tests import replies, sse
from tests.contract.recordings import (
    FILES,
    OLD,
    RELEASES,
    Comparable,
    Speaker,
    Speakers,
    chat_app,
    comparable_events,
    events,
    recorded,
    send,
)

# Server, dates and lengths are no contract; the recorded instance named another version.
COMPARED = (
    "Content-Type",
    "WWW-Authenticate",
    "Access-Control-Allow-Origin",
    "Access-Control-Allow-Credentials",
    "Access-Control-Expose-Headers",
    "X-Env",
)
CASES = {release: {one["case"]: one for one in recorded(release)} for release in FILES}
EVERY = [(release, case) for release, cases in CASES.items() for case in cases]
EVENTS_OF_1_14 = [
    "ping",
    "workflow_started",
    "node_started",
    "message",
    "message",
    "node_finished",
    "node_started",
    "node_finished",
    "message_end",
    "workflow_finished",
]


releases = pytest.mark.parametrize("release", RELEASES)


@pytest.fixture
def speaker(speakers: Speakers, release: str) -> Speaker:
    """The instance of the test's release."""
    return speakers.of(release)


def vary(headers: Mapping[str, str]) -> set[str]:
    return {name.strip() for name in headers.get("Vary", "").split(",") if name.strip()}


def test_every_request_was_recorded_of_both_releases() -> None:
    assert {release: len(cases) for release, cases in CASES.items()} == dict.fromkeys(FILES, 41)


@pytest.mark.parametrize(("release", "case"), EVERY)
def test_answer_is_the_recorded_one(speaker: Speaker, release: str, case: str) -> None:
    one = CASES[release][case]
    answer = send(speaker, one["request"], case)

    assert answer.status_code == one["status"], answer.text[:500]
    for name in COMPARED:
        assert answer.headers.get(name) == one["headers"].get(name), name
    assert vary(answer.headers) == vary(one["headers"])
    assert answer.headers["X-Version"] == release
    kind = one["headers"]["Content-Type"]
    if kind.startswith("text/event-stream"):
        # A recording that is cut ends inside an event.
        received, expected = events(answer.text), events(one["body"])
        if one["body"].endswith("\n\n"):
            assert len(received) == len(expected), answer.text
        assert comparable_events(received[: len(expected)]) == comparable_events(expected)
    elif kind.startswith("application/json"):
        assert Comparable().of(answer.json()) == Comparable().of(json.loads(one["body"]))
    else:
        assert answer.text.strip() == one["body"].strip()


def names(text: str) -> list[str]:
    """Return what the events of a stream are."""
    return [
        "ping" if event == "event: ping" else str(json.loads(event.removeprefix("data: "))["event"])
        for event in events(text)
        if event
    ]


@releases
def test_a_whole_stream_has_the_order_of_its_release(speaker: Speaker, release: str) -> None:
    """The recording of 1.12.1 is cut, and none of 1.14 was kept: their ends were seen, and are in dify-behaviour."""
    request = CASES[OLD]["streaming"]["request"]
    received = names(send(speaker, request, "streaming").text)

    expected = {
        "1.12.1": [*EVENTS_OF_1_14[1:-2], "workflow_finished", "message_end"],
        "1.14.2": EVENTS_OF_1_14,
        "1.17.1": [*EVENTS_OF_1_14[:2], "message", "message", "node_started", *EVENTS_OF_1_14[5:]],
    }
    assert received == expected[release]


@releases
def test_a_client_is_served_by_every_release(speaker: Speaker) -> None:
    request = CASES[OLD]["streaming"]["request"]
    answer = send(speaker, request, "streaming")

    reply = replies.read(sse.read([(0.0, answer.content)]))
    assert reply.faults == ()
    whole = send(speaker, CASES[OLD]["blocking ok"]["request"], "blocking ok").json()
    assert reply.text == whole["answer"]


@releases
@pytest.mark.parametrize("path", ["/console/api", "/v1", "/api", "/files", "/mcp"])
def test_schemas_are_public_unless_they_are_turned_off(speaker: Speaker, path: str) -> None:
    schema = speaker.instance.api.get(f"{path}/swagger.json")
    page = speaker.instance.api.get(f"{path}/swagger-ui.html")

    assert (schema.status_code, page.status_code) == (httpx.codes.OK, httpx.codes.OK)
    assert schema.json()["paths"]


@releases
def test_openapi_is_not_there_by_default(speaker: Speaker) -> None:
    answer = speaker.instance.api.get("/openapi/v1/apps")

    assert answer.status_code == httpx.codes.NOT_FOUND
    assert answer.headers["Content-Type"].startswith("text/html")


def dsl_of(version: str) -> str:
    return chat_app(OLD).replace("version: 0.5.0", f"version: {version}")


@releases
def test_an_import_is_told_by_the_version_of_its_dsl(speaker: Speaker, release: str) -> None:
    one, older = speaker.instance, "completed" if release == OLD else "completed-with-warnings"

    assert one.imports(dsl_of("0.5.0"))["status"] == older
    assert one.imports(dsl_of("nonsense"))["status"] == "failed"
    newer = one.imports(dsl_of("9.0.0"))
    assert (newer["status"], newer["app_id"]) == ("pending", None)
    confirmed = one.console.post(f"/apps/imports/{newer['id']}/confirm", json={}).json()
    assert confirmed["status"] == "completed"
    assert confirmed["app_id"]
    again = one.console.post(f"/apps/imports/{newer['id']}/confirm", json={})
    assert again.status_code == httpx.codes.BAD_REQUEST
