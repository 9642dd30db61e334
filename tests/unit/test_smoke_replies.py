"""A streamed answer is judged by what clients rely on: the streams of all releases pass, and broken ones do not."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dify_kit.benchmark.targets import Reading
from smoke_tests import replies, sse
from smoke_tests.chat import least_spread
from tests.unit.recorded_streams import ANSWER, PING, STREAMS, joined, name

Blocks = list[str]
releases = pytest.mark.parametrize("release", STREAMS)


def judged(events: Blocks) -> replies.Reply:
    return replies.read(sse.read([(0.0, joined(events))]))


def changed(block: str, **fields: Any) -> str:
    return f"data: {json.dumps(json.loads(block.removeprefix('data: ')) | fields)}"


def without(events: Blocks, kind: str) -> Blocks:
    return [one for one in events if name(one) != kind]


def at(events: Blocks, kind: str) -> int:
    return next(place for place, one in enumerate(events) if name(one) == kind)


def moved_to_the_end(events: Blocks, kind: str) -> Blocks:
    place = at(events, kind)
    return [*events[:place], *events[place + 1 :], events[place]]


@releases
def test_the_stream_of_a_release_serves_a_client(release: str) -> None:
    reply = judged(STREAMS[release]())

    assert reply.faults == ()
    assert reply.text == ANSWER
    assert reply.conversation


def test_the_streams_have_the_orders_of_their_releases() -> None:
    names = {release: [name(one) for one in stream()] for release, stream in STREAMS.items()}

    assert names["1.12.1"][0] == "workflow_started"
    assert names["1.12.1"][-2:] == ["workflow_finished", "message_end"]
    assert (names["1.14"][0], names["1.14"][-2:]) == ("ping", ["message_end", "workflow_finished"])
    assert names["1.17"][:3] == ["ping", "workflow_started", "message"]
    assert names["1.17"][-2:] == ["message_end", "workflow_finished"]


@given(release=st.sampled_from(sorted(STREAMS)), places=st.lists(st.integers(0, 30), max_size=6))
def test_pings_may_come_anywhere(release: str, places: list[int]) -> None:
    events = STREAMS[release]()
    for place in places:
        events.insert(place % (len(events) + 1), PING if place % 2 else "event: ping\ndata: {}")

    assert judged(events) == judged(STREAMS[release]())


DEFECTS: dict[str, tuple[Callable[[Blocks], Blocks], str]] = {
    "cut off before its end": (lambda all_: all_[: at(all_, "message_end")], "message_end occurs 0 times"),
    "cut off in an event": (lambda all_: [*all_[:-1], all_[-1][:40]], "is not a JSON object"),
    "without the end of the workflow": (
        lambda all_: without(all_, "workflow_finished"),
        "without workflow_finished",
    ),
    "an error in place of the end": (
        lambda all_: [
            *without(all_, "message_end"),
            'data: {"event":"error","code":"invalid_param","message":"Run failed","status":400}',
        ],
        "an error event",
    ),
    "an error and an end": (
        lambda all_: [*all_, 'data: {"event":"error","message":"Run failed"}'],
        "an error event",
    ),
    "two ends": (lambda all_: [*all_, all_[at(all_, "message_end")]], "message_end occurs 2 times"),
    "text behind the end": (lambda all_: moved_to_the_end(all_, "message"), "text after message_end"),
    "another conversation's event": (
        lambda all_: [*all_[:-1], changed(all_[-1], conversation_id="another")],
        "conversation_id changes",
    ),
    "another message's event": (
        lambda all_: [*all_[:-1], changed(all_[-1], message_id="another")],
        "message_id changes",
    ),
    "no conversation": (
        lambda all_: [one if one == PING else changed(one, conversation_id=None) for one in all_],
        "no event has a conversation_id",
    ),
    "a failed workflow": (
        lambda all_: [
            changed(one, data={"status": "failed"}) if name(one) == "workflow_finished" else one
            for one in all_
        ],
        "the workflow ended with status failed",
    ),
    "nothing": (lambda _: [], "message_end occurs 0 times"),
    "pings alone": (lambda _: [PING, PING], "message_end occurs 0 times"),
}


@releases
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_reported(release: str, defect: str) -> None:
    break_it, fault = DEFECTS[defect]

    assert fault in " ".join(judged(break_it(STREAMS[release]())).faults)


@releases
def test_lost_text_shows_in_the_text(release: str) -> None:
    events = STREAMS[release]()
    events.pop(at(events, "message"))

    assert judged(events).text != ANSWER


def test_a_replacement_takes_the_place_of_the_text() -> None:
    events = STREAMS["1.17"]()
    place = at(events, "message_end")
    replaced = changed(events[at(events, "message")], event="message_replace", answer="No.")
    events.insert(place, replaced)

    assert judged(events).text == "No."


@releases
def test_the_bench_reads_the_end_of_every_release(release: str) -> None:
    reading = Reading()
    for line in joined(STREAMS[release]()).decode().splitlines():
        reading.line(line)

    assert (reading.token, reading.done, reading.failed) == (True, True, False)


@releases
def test_the_spread_is_read_wherever_the_end_of_the_workflow_stands(release: str) -> None:
    assert least_spread(sse.read([(0.0, joined(STREAMS[release]()))])) == pytest.approx(0.152111 / 4)
