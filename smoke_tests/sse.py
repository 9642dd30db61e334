"""Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html defines the stream."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"[\r\n]")


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event: its `event:` field (`message` without one), its data, and when its end arrived (seconds)."""

    name: str
    data: str
    at: float

    def json(self) -> dict[str, Any]:
        """Return the data as a JSON object. Raises ValueError when it is not one."""
        content = json.loads(self.data)
        if not isinstance(content, dict):
            raise ValueError(f"event data is not a JSON object: {self.data[:200]!r}")  # noqa: TRY004  # as json does
        return content


class Reader:
    """Splits a byte stream into events, regardless of the pieces in which it arrives."""

    def __init__(self) -> None:
        self._rest = b""
        self._started = False
        self._after_cr = False
        self._name = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes, at: float) -> Iterator[Event]:
        """Add the bytes that arrived at time `at` (seconds); yield the events that they complete."""
        self._rest += chunk
        if not self._started:
            if len(self._rest) < len(_BOM) and _BOM.startswith(self._rest):
                return
            self._rest = self._rest.removeprefix(_BOM)
            self._started = True
        while (line := self._next_line()) is not None:
            if event := self._line(line.decode("utf-8", errors="replace"), at):
                yield event

    def _next_line(self) -> bytes | None:
        """Return the next complete line, which ends in LF, CRLF or CR; None while there is none."""
        if self._after_cr and self._rest:
            self._rest = self._rest.removeprefix(b"\n")
            self._after_cr = False
        found = _LINE_END.search(self._rest)
        if found is None:
            return None
        line, self._rest = self._rest[: found.start()], self._rest[found.end() :]
        self._after_cr = found.group() == b"\r"
        return line

    def _line(self, line: str, at: float) -> Event | None:
        if not line:
            name, data = self._name or "message", self._data
            named, self._name, self._data = bool(self._name), "", []
            # Dify's keep-alive is `event: ping` without data, which a browser drops and a test may count.
            return Event(name=name, data="\n".join(data), at=at) if data or named else None
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        return None


def read(arrivals: Iterable[tuple[float, bytes]]) -> list[Event]:
    """Return the events of a finished stream; `arrivals` are its pieces with their times in seconds."""
    reader = Reader()
    return [event for at, chunk in arrivals for event in reader.feed(chunk, at)]
