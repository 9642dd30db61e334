"""The reader of server-sent events gives the same events, however the stream was cut."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoke_tests import sse


def events_of(*chunks: bytes) -> list[tuple[str, str]]:
    return [(event.name, event.data) for event in sse.read([(0.0, chunk) for chunk in chunks])]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        pytest.param(b"data: a\n\n", [("message", "a")], id="lf"),
        pytest.param(b"data: a\r\n\r\n", [("message", "a")], id="crlf"),
        pytest.param(b"data: a\r\rdata: b\r\r", [("message", "a"), ("message", "b")], id="cr"),
        pytest.param(b"\xef\xbb\xbfdata: a\n\n", [("message", "a")], id="byte-order-mark"),
        pytest.param(b"data: a\ndata: b\n\n", [("message", "a\nb")], id="several-lines"),
        pytest.param(b"data:a\n\ndata:  a\n\n", [("message", "a"), ("message", " a")], id="one-space-goes"),
        pytest.param(b"data\n\n", [("message", "")], id="field-without-colon"),
        pytest.param(b": comment\n\ndata: a\n\n", [("message", "a")], id="comment"),
        pytest.param(b"id: 1\nretry: 5\ndata: a\n\n", [("message", "a")], id="other-fields"),
        pytest.param(
            b"event: ping\n\ndata: a\n\n", [("ping", ""), ("message", "a")], id="keep-alive-of-dify"
        ),
        pytest.param(b"event: error\ndata: a\n\n", [("error", "a")], id="named"),
        pytest.param(b"data: a\n\ndata: cut off", [("message", "a")], id="unfinished-event"),
        pytest.param(
            'data: {"a":"\u2028\u0085"}\n\n'.encode(),
            [("message", '{"a":"\u2028\u0085"}')],
            id="other-breaks",
        ),
        pytest.param(b"\n\n\n", [], id="empty-lines"),
        pytest.param(b"", [], id="nothing"),
    ],
)
def test_stream(stream: bytes, expected: list[tuple[str, str]]) -> None:
    assert events_of(stream) == expected
    assert events_of(*(stream[place : place + 1] for place in range(len(stream)))) == expected


@given(
    answers=st.lists(st.text(), max_size=6),
    cuts=st.lists(st.integers(min_value=0, max_value=400), max_size=8),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_any_cut_gives_the_same_events(answers: list[str], cuts: list[int], end: str) -> None:
    events = [json.dumps({"answer": answer}) for answer in answers]
    stream = "".join(f"data: {event}{end}{end}" for event in events).encode()
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})

    assert [data for _, data in events_of(*(stream[a:b] for a, b in pairwise(places)))] == events


def test_an_event_arrives_with_the_piece_that_completes_it() -> None:
    events = sse.read([(1.0, b"data: a\n"), (2.0, b"\ndata: b\n\nda"), (3.0, b"ta: c\n\n")])

    assert [(event.data, event.at) for event in events] == [("a", 2.0), ("b", 2.0), ("c", 3.0)]


@pytest.mark.parametrize("data", ["[1]", "no JSON", ""])
def test_data_that_is_no_object_is_refused(data: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|Expecting"):
        sse.Event(name="message", data=data, at=0.0).json()
