"""The output of a running app: the text of its answer and end nodes, each piece as soon as it is available."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Event = dict[str, Any]
Node = Mapping[str, Any]

MAX_PIECES = 100_000
MAX_PAUSE = 60.0


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A piece of a node's text: a variable's value, or `literal` text. `pause`: seconds after it."""

    node: str
    event: str
    selector: tuple[str, ...]
    literal: str | None = None
    pause: float = 0.0


def of_template(node: str, template: str) -> Iterator[Piece]:
    """Cut an answer's text as Dify does: literal text and `{{#node.name#}}` in turn."""
    rest = template
    while rest:
        before, found, after = rest.partition("{{#")
        if before:
            yield Piece(node=node, event="message", selector=(node, "answer"), literal=before)
        if not found:
            return
        name, _, rest = after.partition("#}}")
        yield Piece(node=node, event="message", selector=tuple(name.strip().split(".")))


def of_query(node: str, query: str) -> list[Piece]:
    """Return the pieces that `/stream PIECES SECONDS` asks for, none for any other query."""
    words = query.split()
    if len(words) != 3 or words[0] != "/stream":  # noqa: PLR2004  # the directive's own form
        return []
    try:
        count, pause = int(words[1]), float(words[2])
    except ValueError:
        return []
    count, pause = min(MAX_PIECES, max(1, count)), min(MAX_PAUSE, max(0.0, pause))
    selector = (node, "answer")
    return [
        Piece(node=node, event="message", selector=selector, literal=f"{one} ", pause=pause)
        for one in range(count)
    ]


def of_outputs(node: str, outputs: Sequence[Mapping[str, Any]]) -> Iterator[Piece]:
    """Return the pieces of an end node: its outputs."""
    for output in outputs:
        yield Piece(node=node, event="text_chunk", selector=tuple(output["value_selector"]))


class Answers:
    """The pieces of a run, in the order of its nodes. A piece that is not available yet delays those after it."""

    def __init__(self, nodes: Iterable[Node], query: str) -> None:
        self._text: dict[str, str] = {}
        # What has been said already of the piece that all others wait for.
        self._said = ""
        self._waiting: deque[Piece] = deque()
        self.add(nodes, query)

    def add(self, nodes: Iterable[Node], query: str) -> None:
        """Add the output of these nodes after the current one: those of the chosen branch."""
        for node in nodes:
            name, data = str(node["id"]), node["data"]
            if data["type"] == "answer":
                self._text[name] = ""
                self._waiting += of_query(name, query) or of_template(name, data["answer"])
            elif data["type"] == "end":
                self._waiting += of_outputs(name, data.get("outputs", []))

    def known(self, variables: Mapping[str, Any]) -> Iterator[Event]:
        """Yield the pieces that are available now."""
        while self._waiting:
            piece = self._waiting[0]
            if piece.literal is None and ".".join(piece.selector) not in variables:
                return
            yield from self._say(variables)

    def stream(self, selector: tuple[str, ...], text: str) -> Iterator[Event]:
        """Yield a piece of a variable that is not complete yet, when all before it has been said."""
        if not self._waiting or self._waiting[0].literal is not None or self._waiting[0].selector != selector:
            return
        self._said += text
        yield _event(self._waiting[0], text)

    def rest_of(self, node: str, variables: Mapping[str, Any]) -> Iterator[Event]:
        """Yield the remaining pieces of a node when it runs; an unset variable is empty."""
        while any(piece.node == node for piece in self._waiting):
            yield from self._say(variables)

    def text(self, node: str) -> str:
        """Return the text of an answer node."""
        return self._text[node]

    def _say(self, variables: Mapping[str, Any]) -> Iterator[Event]:
        piece, already = self._waiting.popleft(), self._said
        self._said = ""
        value = piece.literal if piece.literal is not None else variables.get(".".join(piece.selector), "")
        if piece.event == "message":
            said = str(value)
            self._text[piece.node] += said
            if rest := said.removeprefix(already):
                yield _event(piece, rest)
        elif isinstance(value, str) and (rest := value.removeprefix(already)):
            yield _event(piece, rest)
        time.sleep(piece.pause)


def _event(piece: Piece, text: str) -> Event:
    selector = list(piece.selector)
    if piece.event == "message":
        return {"event": "message", "answer": text, "from_variable_selector": selector}
    return {"event": "text_chunk", "data": {"text": text, "from_variable_selector": selector}}
