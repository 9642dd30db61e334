"""The comparison of the contract tests forgives ids, times and durations, and nothing else."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.model_recordings import differences
from tests.contract.recordings import NEW, comparable_events, events, recorded

BODY = next(one for one in recorded(NEW) if one["case"] == "streaming")["body"]
BLOCKS = events(BODY)


def change(place: int, alter: Callable[[dict[str, Any]], Any]) -> list[str]:
    """Return the stream with one event altered."""
    event = json.loads(BLOCKS[place].removeprefix("data: "))
    alter(event)
    return [*BLOCKS[:place], f"data: {json.dumps(event)}", *BLOCKS[place % len(BLOCKS) + 1 :]]


def test_the_same_answer_at_another_time_is_the_same() -> None:
    later = [
        block.replace("17958839", "17999999")
        .replace("8cf81d5d-4615", "11111111-2222")
        .replace("0.152111", "7.5")
        for block in BLOCKS
    ]

    assert later != BLOCKS
    assert comparable_events(later) == comparable_events(BLOCKS)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param([*BLOCKS[:2], BLOCKS[4], *BLOCKS[2:4], *BLOCKS[5:]], id="another-order"),
        pytest.param(BLOCKS[1:], id="no-opening-ping"),
        pytest.param(BLOCKS[:-1], id="one-less"),
        pytest.param([*BLOCKS[:-2], BLOCKS[-1], BLOCKS[-2]], id="the-end-of-1.12.1"),
        pytest.param(change(2, lambda event: event.update(answer="You sayed: ")), id="another-text"),
        pytest.param(change(2, lambda event: event.pop("from_variable_selector")), id="a-field-less"),
        pytest.param(change(1, lambda event: event["data"].update(more=None)), id="a-field-more"),
        pytest.param(
            change(3, lambda event: event.update(message_id="00000000-0000-0000-0000-000000000000")),
            id="another-message's-id",
        ),
        pytest.param(change(-1, lambda event: event["data"].update(total_steps=3)), id="another-count"),
        pytest.param(change(-1, lambda event: event["data"].update(status="failed")), id="another-status"),
    ],
)
def test_any_other_difference_shows(broken: list[str]) -> None:
    assert comparable_events(broken) != comparable_events(BLOCKS)


@pytest.mark.parametrize(
    ("recorded_text", "received", "same"),
    [
        (
            "Run 8cf81d5d-4615-4f3c-9b1e-0a2b3c4d5e6f failed",
            "Run 11111111-2222-4333-8444-555555555555 failed",
            True,
        ),
        ("Run failed", "Run ended", False),
        ("运行 8cf81d5d-4615-4f3c-9b1e-0a2b3c4d5e6f", "运行 11111111-2222-4333-8444-555555555555", True),
        ("温度", "Temperature", False),
        ("The answer ends…", "The answer ends", False),
        ("温度", None, False),
    ],
)
def test_texts_of_answers_about_models_are_compared_in_every_language(
    recorded_text: str, received: str | None, same: bool
) -> None:
    assert (differences({"text": recorded_text}, {"text": received}) == []) is same
