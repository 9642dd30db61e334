"""What real releases answered about plugins and models, in order, and how their requests are sent again.

A request names things that an earlier answer named: ids, keys, identifiers of packages. They are replaced by those that
the instance under test gave for them.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FACTS = Path(__file__).resolve().parents[1] / "facts" / "plugin-and-model-answers.jsonl"
OLD, NEW = "1.14.2", "1.17.1"
ROOT = "/console/api/workspaces/current"
PROVIDER = "langgenius/openai_api_compatible/openai_api_compatible"
# Of 308 recorded answers those of 1.14.2, in the middle of the others.
OF_OLD = range(251, 279)

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_MASKS = (
    (_UUID, "id"),
    (_TIME, "time"),
    (re.compile(r"req_id: [0-9a-f]{10}"), "req_id"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "hash"),
    (re.compile(r"http://localhost:\d+"), "http://localhost"),
    # The batch of a document: its time and six digits.
    (re.compile(r"\b20\d{18}\b"), "batch"),
    # Resolvers differ in what they say of an unknown name.
    (re.compile(r"\(\[Errno -\d+\] [^)]*\)"), "(unknown)"),
)
_LONG_AGO = 1_000_000_000
_DURATIONS = frozenset({"elapsed_time", "latency", "time_to_first_token", "time_to_generate"})
# Texts and pictures of the packages, and what depends on the machine.
_OWN_WORDS = frozenset(
    {
        "description",
        "icon",
        "icon_dark",
        "background",
        "help",
        "placeholder",
        "options",
        "created_at",
        "updated_at",
    }
    | {
        "memory",
        "score",
        "index_node_hash",
        "size",
        "finished_at",
        "upgrade_time_of_day",
        "tokens",
        "workflow_id",
    }
)
_LANGUAGES = frozenset({"en_US", "zh_Hans", "pt_BR", "ja_JP"})

Recorded = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One recorded request with its answer. `number` is its line, from nought."""

    number: int
    note: str
    method: str
    path: str
    body: Any
    status: int
    answer: Any
    kind: str


def steps(release: str) -> list[Step]:
    """Return the requests of a release, in order."""
    lines = [json.loads(line) for line in FACTS.read_text(encoding="utf-8").splitlines()]
    found = [
        Step(
            number=number,
            note=one["note"],
            method=one["method"],
            path=one["path"],
            body=one["request"],
            status=one["status"],
            answer=readable(one["answer"]),
            kind=one["content_type"],
        )
        for number, one in enumerate(lines)
    ]
    return [one for one in found if (one.number in OF_OLD) == (release == OLD)]


class Cut:
    """The known part of an answer that was cut when it was recorded."""

    def __init__(self, value: Any) -> None:
        self.value = value


def readable(answer: Any) -> Any:
    """Return an answer as JSON; a part of it when it was cut; else its text."""
    if not isinstance(answer, str) or answer.startswith("event:"):
        return answer
    try:
        return readable(json.loads(answer))
    except ValueError:
        return Cut(_known(answer[:-3])) if answer.endswith("cut") else answer


def _known(text: str) -> Any:
    """Return what can be read of JSON that ends somewhere: all that is complete."""
    ends, stack, quoted = [(0, "")], "", False
    for place, sign in enumerate(text):
        if sign == '"' and (place == 0 or text[place - 1] != "\\"):
            quoted = not quoted
        elif quoted:
            continue
        elif sign in "{[":
            stack = ("}" if sign == "{" else "]") + stack
        elif sign in "}]":
            stack = stack[1:]
            ends.append((place + 1, stack))
        elif sign == ",":
            ends.append((place, stack))
    for place, closing in reversed(ends):
        try:
            return json.loads(text[:place] + closing)
        except ValueError:
            continue
    return {}


@dataclass
class Names:
    """What stands for the recorded ids, keys and addresses in the instance under test."""

    known: dict[str, str] = field(default_factory=dict)

    def sent(self, value: Any) -> Any:
        """Return a recorded value as it is sent."""
        text = json.dumps(value)
        for recorded in sorted(self.known, key=len, reverse=True):
            text = text.replace(json.dumps(recorded)[1:-1], json.dumps(self.known[recorded])[1:-1])
        return json.loads(text)

    def learn(self, recorded: Any, received: Any) -> None:
        """Note which id stands for which, where both have one at the same place."""
        if isinstance(recorded, Cut):
            recorded = recorded.value
        if isinstance(recorded, dict) and isinstance(received, dict):
            for name in recorded.keys() & received.keys():
                self.learn(recorded[name], received[name])
        elif isinstance(recorded, list) and isinstance(received, list):
            for one, other in zip(recorded, received, strict=False):
                self.learn(one, other)
        elif isinstance(recorded, str) and isinstance(received, str) and _UUID.fullmatch(recorded):
            self.known.setdefault(recorded, received)


def differences(recorded: Any, received: Any, place: str = "", *, part: bool = False) -> list[str]:
    """Return where an answer is another one than recorded: its fields, its texts, its numbers.

    `part`: the recorded one may end earlier.
    """
    if isinstance(recorded, Cut):
        return differences(recorded.value, received, place, part=True)
    name = place.rsplit(".", 1)[-1]
    if _is_own(place, recorded):
        return []
    if isinstance(recorded, dict):
        return _of_objects(recorded, received, place, part=part)
    if isinstance(recorded, list):
        if not isinstance(received, list) or (
            len(recorded) > len(received) if part else len(recorded) != len(received)
        ):
            return [f"{place}: {recorded!r:.300} became {received!r:.300}"]
        pairs = zip(recorded, received, strict=False)
        return [
            found for n, pair in enumerate(pairs) for found in differences(*pair, f"{place}[{n}]", part=part)
        ]
    return [] if _same(name, recorded, received) else [f"{place}: {recorded!r:.400} became {received!r:.400}"]


def _is_own(place: str, recorded: Any) -> bool:
    """Tell whether a value belongs to a package, the machine or the moment, and not to the API."""
    parts = set(re.split(r"[.\[]", place))
    if parts & _OWN_WORDS or ".model.models[" in place:
        return True
    return place.rsplit(".", 1)[-1] in _LANGUAGES and ("schema" in place or str(recorded).endswith(".svg"))


def _of_objects(recorded: Mapping[str, Any], received: Any, place: str, *, part: bool) -> list[str]:
    if not isinstance(received, dict):
        return [f"{place}: {recorded!r:.300} became {received!r:.300}"]
    found = [f"{place}.{name} is missing" for name in recorded if name not in received]
    if not part:
        found += [f"{place}.{name} is there" for name in received if name not in recorded]
    for name in recorded:
        if name in received:
            found += differences(recorded[name], received[name], f"{place}.{name}", part=part)
    return found


def _same(name: str, recorded: Any, received: Any) -> bool:
    if name in _DURATIONS or (isinstance(recorded, int) and recorded > _LONG_AGO):
        return isinstance(received, int | float)
    if isinstance(recorded, str) and recorded in {"<key>", "<masked key>"}:
        return isinstance(received, str) and ("*" in received) == ("masked" in recorded)
    if isinstance(recorded, str) and isinstance(received, str):
        return _masked(recorded) == _masked(received)
    return bool(recorded == received)


def _masked(text: str) -> str:
    for pattern, mark in _MASKS:
        text = pattern.sub(mark, text)
    return text


def events(text: str) -> list[Any]:
    """Return the complete events of a stream, a ping as its text."""
    blocks = [block for block in text.split("\n\n")[: None if text.endswith("\n\n") else -1] if block.strip()]
    return [json.loads(one.removeprefix("data: ")) if one.startswith("data: ") else one for one in blocks]
