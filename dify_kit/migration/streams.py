"""Rewriting what reads a streamed answer line by line.

Dify and OpenAI frame events alike (`data: ` and JSON), so the reading of lines stays as it is. What changes is
the event itself, and that `[DONE]`, which is no JSON, ends the stream.
"""

from collections.abc import Callable, Sequence

import libcst as cst

from dify_kit.migration.finding import assigned, bindings, origin, text, uses, walk
from dify_kit.migration.plan import Context, Edits, UndecidedError, put, remove

_TEXT_METHODS = {"strip", "lstrip", "rstrip", "removeprefix", "replace", "split", "partition"}
_KINDS = {"message": "content", "agent_message": "content", "message_end": "end", "error": "error"}
_MORE = "it reads more of the stream than `answer`, and the events that carry it"
_LINES = "what becomes of the lines of its stream is not understood"


class Shape:
    """How a chunk is read: as parsed JSON, or as an object of the `openai` package. `{q}` are quotes."""

    def __init__(self, *, is_object: bool = False) -> None:
        self.is_object = is_object

    def content(self, quote: str, *, forgiving: bool = False) -> str:
        """Return the expression of a chunk's text, empty where it has none; `forgiving`: where it is an error too."""
        if self.is_object:
            return f"{quote}{quote}.join(choice.delta.content or {quote}{quote} for choice in event.choices)"
        choices = 'event.get("choices", [])' if forgiving else 'event["choices"]'
        found = f'"".join(choice["delta"].get("content") or "" for choice in {choices})'
        return found.replace('"', quote)

    def test(self, kind: str, quote: str) -> str:
        """Return the expression that tells whether a chunk is of a kind: `content`, `end` or `error`."""
        if self.is_object:
            return {
                "content": "any(choice.delta.content for choice in event.choices)",
                "end": "any(choice.finish_reason and not choice.delta.content for choice in event.choices)",
                "error": "False",  # the package raises
            }[kind]
        return {
            "content": 'any(choice["delta"].get("content") for choice in event.get("choices", []))',
            "end": (
                'any(choice.get("finish_reason") and not choice["delta"].get("content") '
                'for choice in event.get("choices", []))'
            ),
            "error": '"error" in event',
        }[kind].replace('"', quote)


class Events:
    """Follows one parsed event to everything that reads it."""

    def __init__(self, context: Context, edits: Edits, shape: Shape) -> None:
        self.context, self.edits, self.shape = context, edits, shape
        # Names of events that were compared, and are gone with their comparison.
        self.literals: set[cst.CSTNode] = set()

    def follow(self, event: cst.CSTNode) -> None:
        """Plan the edits of what reads an event, which is a name or an expression."""
        parents = self.context.parents
        parent = parents[event]
        outer = parents[parent]
        match parent:
            case cst.Subscript(slice=[cst.SubscriptElement(slice=cst.Index(value=key))]) if (
                parent.value is event
            ):
                self._field(event, parent, text(key) or "", self.context.code(key)[-1], None)
            case cst.Attribute(attr=cst.Name("get")) if isinstance(outer, cst.Call) and parent.value is event:
                if not outer.args or any(a.keyword or a.star for a in outer.args):
                    raise UndecidedError(_MORE)
                default = self.context.code(outer.args[1].value) if len(outer.args) > 1 else ""
                key = outer.args[0].value
                self._field(event, outer, text(key) or "", self.context.code(key)[-1], default)
            case cst.ComparisonTarget(operator=cst.In()) if isinstance(outer, cst.Comparison):
                if text(outer.left) != "answer" or len(outer.comparisons) != 1:
                    raise UndecidedError(_MORE)
                self._replace(outer, event, self.shape.test("content", self.context.code(outer.left)[-1]))
            case cst.Assign() | cst.AnnAssign():
                self.named(event, self.follow)
            case _ if not _shown(event, self.context):
                raise UndecidedError(_MORE)

    def chunk(self, event: cst.CSTNode) -> None:
        """Plan the edits of what reads an event that is an object with attributes."""
        parent = self.context.parents[event]
        if isinstance(parent, cst.Attribute) and parent.value is event:
            match parent.attr.value:
                case "answer":
                    self._replace(parent, event, self.shape.content('"'))
                case "event":
                    self._kind(parent, event)
                case _:
                    raise UndecidedError(_MORE)
        elif not _shown(event, self.context):
            raise UndecidedError(_MORE)

    def named(self, value: cst.CSTNode, follow: Callable[[cst.CSTNode], None]) -> None:
        """Follow a value through the one name that it is given."""
        name = given_name(value, self.context)
        for use in uses(name, self.context.scope(value), self.context.parents):
            follow(use)

    def _field(
        self, event: cst.CSTNode, read: cst.CSTNode, key: str, quote: str, default: str | None
    ) -> None:
        parent = self.context.parents[read]
        if (
            isinstance(parent, cst.AssignTarget | cst.AugAssign | cst.Del)
            and getattr(parent, "value", 0) is not read
        ):
            raise UndecidedError(_MORE)
        match key:
            case "answer":
                empty = default in {None, "", '""', "''", "None"}
                content = self.shape.content(quote, forgiving=default is not None)
                self._replace(read, event, content if empty else f"({content} or {default})")
            case "event":
                self._kind(read, event)
            case "message" if not default:
                self._replace(read, event, 'event["error"]["message"]'.replace('"', quote))
            case _:
                raise UndecidedError(_MORE)

    def _kind(self, read: cst.CSTNode, event: cst.CSTNode) -> None:
        """Follow the name of an event to what compares it."""
        parents = self.context.parents
        parent = parents[read]
        if isinstance(parent, cst.Assign | cst.AnnAssign):
            self.named(read, lambda use: self._kind(use, event))
            line = parents[parent]
            if len(getattr(line, "body", ())) != 1:
                raise UndecidedError(_MORE)
            self.edits[line] = remove(line, self.context)
            return
        if not isinstance(parent, cst.Comparison) or len(parent.comparisons) != 1 or parent.left is not read:
            raise UndecidedError(_MORE)
        operator, right = parent.comparisons[0].operator, parent.comparisons[0].comparator
        literals: Sequence[cst.CSTNode] = [right]
        if isinstance(operator, cst.In | cst.NotIn) and isinstance(right, cst.Tuple | cst.List | cst.Set):
            literals = [element.value for element in right.elements]
        elif not isinstance(operator, cst.Equal | cst.NotEqual):
            raise UndecidedError(_MORE)
        kinds = {self._kind_of(one) for one in literals}
        if "" in kinds:
            raise UndecidedError(_MORE)
        if "end" in kinds:
            self._check_end(parent, kinds)
        quote = self.context.code(literals[0])[-1]
        quote = quote if quote in {'"', "'"} else '"'
        test = " or ".join(self.shape.test(kind, quote) for kind in sorted(kinds))
        negated = isinstance(operator, cst.NotEqual | cst.NotIn)
        plain = isinstance(parents[parent], cst.If | cst.While)
        if negated:
            test = f"not {test}" if len(kinds) == 1 and "error" not in kinds else f"not ({test})"
        self._replace(parent, event, test if plain or (len(kinds) == 1 and not negated) else f"({test})")

    def _kind_of(self, literal: cst.CSTNode) -> str:
        if self.shape.is_object and isinstance(literal, cst.Attribute):
            where = origin(literal, self.context.module, self.context.parents)
            if where.startswith("dify_client.") and ".StreamEvent." in where:
                self.literals.add(literal)
                return _KINDS.get(literal.attr.value.lower(), "")
        return _KINDS.get(text(literal) or "", "")

    def _check_end(self, test: cst.CSTNode, kinds: set[str]) -> None:
        """Let the end of a stream only be left by: not every service tells it apart from the last text."""
        above = self.context.parents[test]
        calm = cst.Break | cst.Continue | cst.Pass
        body = above.body.body if isinstance(above, cst.If) and above.test is test else []
        smalls = [small for line in body for small in getattr(line, "body", [line])]
        for small in smalls:
            prints = isinstance(small, cst.Expr) and self.context.code(small).startswith("print(")
            leaves = isinstance(small, cst.Return) and small.value is None
            if not (isinstance(small, calm) or prints or leaves):
                smalls = []
                break
        if not smalls or len(kinds) > 1:
            raise UndecidedError(
                "what it does at `message_end` is not understood; leave the loop at `[DONE]`"
            )

    def _replace(self, node: cst.CSTNode, event: cst.CSTNode, pattern: str) -> None:
        value = cst.parse_expression(self.context.code(event))
        self.edits[node] = lambda _: put(pattern, event=value)


class Lines:
    """Follows the lines of a streamed response. `is_bytes` tells what a line is before anything is done to it."""

    def __init__(self, context: Context, edits: Edits, loop: cst.For, *, is_bytes: bool) -> None:
        self.context, self.edits, self.loop, self.is_bytes = context, edits, loop, is_bytes
        self.events = Events(context, edits, Shape())

    def plan(self) -> None:
        """Plan the edits of everything in the loop that reads its lines."""
        if not isinstance(self.loop.target, cst.Name) or self.loop.orelse is not None:
            raise UndecidedError(_LINES)
        name = self.loop.target.value
        within = self.context.scope(self.loop)
        for place in bindings(name, within, self.context.parents):
            if place is not self.loop.target and not self._rebinds(place):
                raise UndecidedError(f"`{name}` is assigned more than once")
        for use in uses(name, within, self.context.parents):
            self._line(use)

    def _rebinds(self, place: cst.Name) -> bool:
        """Tell whether a name of the loop is given a value made of itself: `line = line.decode()`."""
        target = self.context.parents[place]
        statement = self.context.parents[target]
        return (
            isinstance(target, cst.AssignTarget)
            and isinstance(statement, cst.Assign)
            and len(statement.targets) == 1
            and bool(uses(place.value, statement.value, self.context.parents))
            and self._loop_of(place) is self.loop
        )

    def _loop_of(self, node: cst.CSTNode) -> cst.CSTNode:
        while not isinstance(
            node, cst.For | cst.While | cst.CompFor | cst.FunctionDef | cst.Lambda | cst.Module
        ):
            node = self.context.parents[node]
        return node

    def _line(self, value: cst.CSTNode) -> None:
        """Follow a line, or what was made of it."""
        parents = self.context.parents
        parent = parents[value]
        outer = parents[parent]
        match parent:
            case cst.Attribute() if parent.value is value and isinstance(outer, cst.Call):
                self._same_type(value, [a.value for a in outer.args])
                if parent.attr.value in _TEXT_METHODS | {"decode"}:
                    self._line(outer)
                elif parent.attr.value not in {"startswith", "endswith"}:
                    raise UndecidedError(_LINES)
            case cst.Subscript() if parent.value is value:
                self._line(parent)
            case cst.Arg() if isinstance(outer, cst.Call) and outer.args[0] is parent:
                self._passed(value, outer)
            case cst.Assign() if isinstance(parent.targets[0].target, cst.Name) and len(parent.targets) == 1:
                name = parent.targets[0].target.value
                if not (isinstance(self.loop.target, cst.Name) and name == self.loop.target.value):
                    self.events.named(value, self._line)
            case cst.If() | cst.BooleanOperation() | cst.UnaryOperation(operator=cst.Not()):
                pass
            case cst.Comparison() | cst.ComparisonTarget():
                whole = parent if isinstance(parent, cst.Comparison) else outer
                sides = [*whole.children, *(c for child in whole.children for c in child.children)]
                self._same_type(value, sides)
            case _:
                raise UndecidedError(_LINES)

    def _passed(self, value: cst.CSTNode, call: cst.Call) -> None:
        called = self.context.code(call.func)
        if origin(call.func, self.context.module, self.context.parents) == "json.loads":
            self._stop_at_done(value, call)
            self.events.follow(call)
        elif called == "str":
            self._line(call)
        elif called not in {"print", "isinstance"}:
            raise UndecidedError(_LINES)

    def _same_type(self, value: cst.CSTNode, literals: Sequence[cst.CSTNode]) -> None:
        """Refuse lines that are bytes and are treated as text, or the other way round: they are something else."""
        wrong = "str" if self._bytes(value) else "bytes"
        for one in literals:
            if isinstance(one, cst.SimpleString) and type(one.evaluated_value).__name__ == wrong:
                if isinstance(self.context.parents[one], cst.Arg) and self._decodes(one):
                    continue
                raise UndecidedError("its lines are not of the type that this client's are")

    def _decodes(self, literal: cst.CSTNode) -> bool:
        call = self.context.parents[self.context.parents[literal]]
        return isinstance(call, cst.Call) and self.context.code(call.func).endswith(".decode")

    def _bytes(self, value: cst.CSTNode) -> bool:
        match value:
            case cst.Call(func=cst.Attribute(value=of, attr=cst.Name(method))):
                return method != "decode" and self._bytes(of)
            case cst.Call():
                return False
            case cst.Subscript(value=of):
                return self._bytes(of)
            case cst.Name(name):
                made = self._last_made(value, name)
                return self._bytes(made) if made is not None else self.is_bytes
        return self.is_bytes

    def _last_made(self, use: cst.CSTNode, name: str) -> cst.CSTNode | None:
        """Return what a name was last given before it is read here; None for what the loop gives it."""
        order, parents = self.context.order, self.context.parents
        found: list[tuple[int, cst.CSTNode]] = []
        for place in bindings(name, self.loop, parents):
            statement = parents[parents[place]]
            if isinstance(statement, cst.Assign) and order[place] < order[use]:
                line = parents[use]
                while line is not statement and not isinstance(line, cst.For | cst.Module):
                    line = parents[line]
                if line is not statement:
                    found.append((order[place], statement.value))
        return max(found, key=lambda one: one[0])[1] if found else None

    def _stop_at_done(self, value: cst.CSTNode, call: cst.Call) -> None:
        line = self.context.line(call)
        if not isinstance(line, cst.SimpleStatementLine) or self._loop_of(line) is not self.loop:
            raise UndecidedError("its events are not parsed in a line of the loop itself")
        done = 'b"[DONE]"' if self._bytes(value) else '"[DONE]"'
        bare = self.context.code(value).removesuffix(".strip()")
        guard = cst.parse_statement(f"if {bare}.strip() == {done}:\n    break\n")

        def edit(new: cst.CSTNode) -> cst.FlattenSentinel[cst.CSTNode]:
            comments = getattr(new, "leading_lines", ())
            return cst.FlattenSentinel(
                [guard.with_changes(leading_lines=comments), new.with_changes(leading_lines=())]
            )

        self.edits[line] = edit


def given_name(value: cst.CSTNode, context: Context) -> str:
    """Return the name that a value is given, if it is the only value of that name in its scope."""
    parent = context.parents[value]
    within = context.scope(value)
    target: cst.CSTNode | None = None
    if isinstance(parent, cst.Assign):
        target = parent.targets[0].target
    elif isinstance(parent, cst.AnnAssign):
        target = parent.target
    elif isinstance(parent, cst.WithItem) and parent.asname is not None:
        target = parent.asname.name
    if isinstance(within, cst.ClassDef):
        raise UndecidedError("its response is an attribute of a class, which may be read anywhere")
    if not isinstance(target, cst.Name):
        raise UndecidedError("where its response goes cannot be followed; read `answer` next to the call")
    name = target.value
    once = len(bindings(name, within, context.parents)) == 1
    if isinstance(within, cst.FunctionDef):
        once = once and not any(isinstance(n, cst.Global | cst.Nonlocal) for n in walk(within))
    if not once or (
        not isinstance(parent, cst.WithItem) and assigned(name, within, context.parents) is not parent
    ):
        raise UndecidedError(f"`{name}` is assigned more than once")
    return name


def _shown(value: cst.CSTNode, context: Context) -> bool:
    """Tell whether a value is only printed, or asked whether it is there."""
    parent = context.parents[value]
    outer = context.parents[parent]
    if isinstance(parent, cst.Arg) and isinstance(outer, cst.Call):
        return context.code(outer.func) == "print"
    return isinstance(parent, cst.If | cst.BooleanOperation | cst.UnaryOperation)
