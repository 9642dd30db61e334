"""Rewriting what reads the response of a migrated call."""

from collections.abc import Callable, Mapping
from typing import cast

import libcst as cst

from dify_kit.migration.finding import makers, text, uses, walk
from dify_kit.migration.plan import Context, Edits, UndecidedError, put
from dify_kit.migration.streams import Lines, given_name

_HARMLESS = {
    *("raise_for_status", "status_code", "status", "ok", "is_success", "is_error", "elapsed", "headers"),
    *("close", "aclose", "reason", "reason_phrase", "url", "request"),
}
_FAR = "where its response goes cannot be followed; read `answer` next to the call"


class Reader:
    """Follows a response to everything that reads it. `lines` and `whole` tell afterwards how it is read."""

    def __init__(
        self,
        context: Context,
        edits: Edits,
        library: str,
        callers: Mapping[cst.CSTNode, list[cst.CSTNode]] | None = None,
    ) -> None:
        """``callers`` has functions of which some calls alone are followed."""
        self.context, self.edits, self.library = context, edits, library
        self.callers = callers or {}
        self.lines = self.whole = False

    def response(self, response: cst.CSTNode) -> None:
        """Follow a response, which is a name or an expression."""
        parent = self.context.parents[response]
        outer = self.context.parents[parent]
        match parent:
            case cst.Await():
                self.response(parent)
            case cst.Attribute() if parent.value is response:
                self._attribute(parent, outer)
            case cst.Expr():
                pass
            case cst.WithItem() if parent.asname is None:
                pass
            case _:
                self._given(response, self.response)

    def _attribute(self, attribute: cst.Attribute, outer: cst.CSTNode) -> None:
        name = attribute.attr.value
        if name == "json" and isinstance(outer, cst.Call) and not outer.args:
            self.whole = True
            self.parsed(outer)
        elif name in {"iter_lines", "aiter_lines"} and isinstance(outer, cst.Call):
            self._lines(outer, unicode=bool(outer.args))
        elif name == "content" and self.library == "aiohttp":
            self._lines(attribute, unicode=False)
        elif name in {"text", "content"}:
            self._text(outer if isinstance(outer, cst.Call) and outer.func is attribute else attribute)
        elif name == "encoding" and isinstance(outer, cst.AssignTarget):
            pass
        elif name not in _HARMLESS:
            raise UndecidedError(f"what reads the response's `{name}` is not understood")

    def _lines(self, lines: cst.BaseExpression, *, unicode: bool) -> None:
        loop = self.context.parents[lines]
        if not isinstance(loop, cst.For) or loop.iter is not lines:
            raise UndecidedError("its stream is not read in a loop over its lines")
        self.lines = True
        is_bytes = self.library != "httpx"
        if unicode:
            if self.context.code(lines).rpartition(".")[2] != "iter_lines(decode_unicode=True)":
                raise UndecidedError("what it wants of `iter_lines` is not understood")
            # Without a charset, requests takes a stream for Latin-1, and splits characters of UTF-8.
            self.edits[lines] = lambda new: put(
                "map(bytes.decode, lines)", lines=cst.ensure_type(new, cst.Call).with_changes(args=[])
            )
            is_bytes = False
        Lines(self.context, self.edits, loop, is_bytes=is_bytes).plan()

    def _text(self, read: cst.CSTNode) -> None:
        """Accept the body as text where it only tells of an error."""
        node = read
        while not isinstance(node, cst.BaseSmallStatement | cst.BaseStatement):
            node = self.context.parents[node]
        if not isinstance(node, cst.Raise) and not self.context.code(node).startswith("print("):
            raise UndecidedError("what reads the response's text is not understood")

    def parsed(self, data: cst.CSTNode) -> None:
        """Follow a parsed body to its ``answer``."""
        parent = self.context.parents[data]
        outer = self.context.parents[parent]
        match parent:
            case cst.Await():
                self.parsed(parent)
            case cst.Subscript(slice=[cst.SubscriptElement(slice=cst.Index(value=key))]) if text(
                key
            ) == "answer" and not isinstance(outer, cst.AssignTarget | cst.AugAssign | cst.Del):
                quote = self.context.code(key)[-1]
                self.edits[parent] = lambda new: _content(cast("cst.Subscript", new).value, quote)
            case cst.Attribute(attr=cst.Name("get")) if isinstance(outer, cst.Call) and parent.value is data:
                if (
                    not outer.args
                    or text(outer.args[0].value) != "answer"
                    or any(a.keyword for a in outer.args)
                ):
                    raise UndecidedError("it reads more of the response than `answer`")
                self.edits[outer] = lambda new: _content_or(cast("cst.Call", new))
            case cst.Arg() if isinstance(outer, cst.Call) and self.context.code(outer.func) == "print":
                pass  # shown, not read
            case cst.Expr():
                pass
            case _:
                self._given(data, self.parsed)

    def _given(self, value: cst.CSTNode, follow: Callable[[cst.CSTNode], None]) -> None:
        """Follow a value through the name that it is given, or out of the function that returns it."""
        if isinstance(self.context.parents[value], cst.Return):
            for call in self._calls(self.context.scope(value)):
                follow(call)
            return
        name = given_name(value, self.context)
        for use in uses(name, self.context.scope(value), self.context.parents):
            follow(use)

    def _calls(self, function: cst.CSTNode) -> list[cst.CSTNode]:
        """Return the calls of a function that returns what is followed, if it is certain that these are all."""
        parents, module = self.context.parents, self.context.module
        if not isinstance(function, cst.FunctionDef) or function.decorators:
            raise UndecidedError(_FAR)
        name = function.name.value
        returned = [
            n
            for n in walk(function)
            if isinstance(n, cst.Return) and n.value is not None and self.context.scope(n) is function
        ]
        values = [n for n in returned if self.context.code(cast("cst.BaseExpression", n.value)) != "None"]
        defined = [n for n in walk(module) if isinstance(n, cst.FunctionDef) and n.name.value == name]
        if len(values) != 1 or len(defined) != 1 or self.context.shared(name):
            raise UndecidedError(_FAR)
        calls = [self._call_of(use) for use in self._mentions(function)]
        calls = self.callers.get(function, calls)
        if not calls:
            raise UndecidedError(_FAR)
        if function.asynchronous is None:
            return calls
        if not all(isinstance(parents[call], cst.Await) for call in calls):
            raise UndecidedError(_FAR)
        return [parents[call] for call in calls]

    def _mentions(self, function: cst.FunctionDef) -> list[cst.CSTNode]:
        """Return where a function is named: by its name, or, for a method, on an object that is of its class."""
        name, module, parents = function.name.value, self.context.module, self.context.parents
        owner = self.context.scope(function)
        if not isinstance(owner, cst.ClassDef):
            return list(uses(name, module, parents))
        found: list[cst.CSTNode] = []
        for node in walk(module):
            if isinstance(node, cst.Attribute) and node.attr.value == name:
                if not self._is_of(node.value, owner):
                    raise UndecidedError(_FAR)
                found.append(node)
        return found

    def _is_of(self, receiver: cst.BaseExpression, owner: cst.ClassDef) -> bool:
        if isinstance(receiver, cst.Name) and receiver.value == "self":
            within: cst.CSTNode = receiver
            while not isinstance(within, cst.ClassDef | cst.Module):
                within = self.context.parents[within]
            return within is owner
        context = self.context
        made = (
            [receiver]
            if isinstance(receiver, cst.Call)
            else makers(receiver, context.module, context.parents)
        )
        return bool(made) and all(
            isinstance(one, cst.Call) and self.context.code(one.func) == owner.name.value
            for one in made or ()
        )

    def _call_of(self, mention: cst.CSTNode) -> cst.CSTNode:
        call = self.context.parents[mention]
        if not isinstance(call, cst.Call) or call.func is not mention:
            raise UndecidedError(_FAR)
        return call


def _content(data: cst.BaseExpression, quote: str) -> cst.BaseExpression:
    # The author's quotes: inside an f-string the other kind would end it.
    return put('data["choices"][0]["message"]["content"]'.replace('"', quote), data=data)


def _content_or(call: cst.Call) -> cst.BaseExpression:
    """Keep the forgiving reading of ``.get("answer", default)``: a body without choices gives the default."""
    data = cast("cst.Attribute", call.func).value
    quote = cst.ensure_type(call.args[0].value, cst.SimpleString).value[-1]
    start = 'data.get("choices", [{}])[0].get("message", {}).get'.replace('"', quote)
    content = call.args[0].with_changes(value=cst.SimpleString(f"{quote}content{quote}"))
    return call.with_changes(func=put(start, data=data), args=[content, *call.args[1:]])
