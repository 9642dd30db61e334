"""Functions that send a request to the path that they are given: `self._post("/chat-messages", body)`.

All calls of such a function with Dify's chat route are moved together, or none. Where it has other calls too, these
keep it as it is, and the moved ones get a copy of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import libcst as cst

from dify_kit.migration.calls import Site, check_os
from dify_kit.migration.finding import text, walk
from dify_kit.migration.plan import Apply, Context, Edit, Edits, UndecidedError
from dify_kit.migration.responses import Reader

_METHODS = {"post", "request", "stream"}
_COPY = "_model"


@dataclass(frozen=True)
class Wrapper:
    """A function, its only request, and the parameter with the path."""

    function: cst.FunctionDef
    request: cst.Call
    path: str


def wrapper(call: cst.Call, context: Context) -> Wrapper | None:
    """Return the function that a call reaches, if it sends a request to a path that is its parameter."""
    function = context.function(call.func)
    if function is None:
        return None
    found = [
        (inner, path)
        for inner in walk(function)
        if isinstance(inner, cst.Call)
        and isinstance(inner.func, cst.Attribute)
        and inner.func.attr.value in _METHODS
        for argument in inner.args
        if (path := _last_name(argument.value))
        and path in _parameters(function, context)
        and (argument.keyword is None or argument.keyword.value == "url")
    ]
    return Wrapper(function, *found[0]) if len(found) == 1 else None


def arguments(call: cst.Call, function: cst.FunctionDef, context: Context) -> dict[str, cst.Arg]:
    """Return the arguments of a call by the names of a function's parameters. Raises UndecidedError."""
    names = _parameters(function, context)
    found: dict[str, cst.Arg] = {}
    for place, argument in enumerate(call.args):
        if argument.star or (argument.keyword is None and place >= len(names)):
            raise UndecidedError("its arguments are not all spelled out")
        found[argument.keyword.value if argument.keyword else names[place]] = argument
    return found


class Wrapped(Site):
    """All calls of a wrapper that go to Dify's chat route."""

    def __init__(self, found: Wrapper, calls: Sequence[cst.Call], context: Context) -> None:
        super().__init__(found.request, context)
        self.wrapper, self.calls = found, list(calls)
        self.given = [arguments(call, found.function, context) for call in calls]
        self.alone = len(context.mentions(calls[0].func)) == len(calls)

    def plan(self) -> Edits:
        """Return the edits of the function and of its calls."""
        if self.context.shared(self.wrapper.function.name.value):
            raise UndecidedError("another file uses the function that sends it")
        client, url, keywords = self._arguments()
        check_os(self.context)
        self._paths(url)
        self._headers(keywords.get("headers"), client)
        modes = self._bodies(self._given_body(keywords))
        callers: list[cst.CSTNode] = list(self.calls)
        reader = Reader(self.context, self.edits, client.library, {self.wrapper.function: callers})
        reader.response(self.call)
        for self.mode in (*modes,) or (None,):
            self._mode(reader)
        return self.edits if self.alone else self._copied()

    def _paths(self, url: cst.BaseExpression) -> None:
        paths = [given[self.wrapper.path].value for given in self.given if self.wrapper.path in given]
        texts = {text(path) for path in paths}
        if len(paths) != len(self.calls) or len(texts) != 1 or not (route := texts.pop()):
            raise UndecidedError("its path is not spelled out in each call")
        slash = "/" if route.startswith("/") else ""
        base = f"{self.target.base_url}{'' if slash else '/'}"
        joined = cst.parse_expression(f'"{base}" + {self.wrapper.path}')
        self.edits[url] = lambda _: joined
        for path in paths:
            self.edits[path] = lambda _: cst.SimpleString(f'"{slash}chat/completions"')

    def _bodies(self, body: cst.BaseExpression) -> list[cst.DictElement]:
        """Plan the body, or the argument of each call where the body is a parameter; return their modes."""
        inside = self.scope
        modes: list[cst.DictElement] = []
        bodies = [(self.call, body)]
        if isinstance(body, cst.Name) and body.value in _parameters(self.wrapper.function, self.context):
            if len(self.context.uses(body.value, self.wrapper.function)) != 1:
                raise UndecidedError("its body is built in several steps, or used twice")
            if not all(body.value in given for given in self.given):
                raise UndecidedError("its body is not given in each call")
            bodies = [
                (call, given[body.value].value) for call, given in zip(self.calls, self.given, strict=True)
            ]
        for call, one in bodies:
            self.scope, self.mode = self.context.scope(call), None
            self._body(one)
            modes += [self.mode] if self.mode is not None else []
        if modes and (len(modes) != len(bodies) or len({self._code(mode.value) for mode in modes}) != 1):
            raise UndecidedError("its calls have different response modes")
        self.scope = inside
        return modes

    def _is_post(self, method: cst.BaseExpression) -> bool:
        if not isinstance(method, cst.Name):
            return super()._is_post(method)
        values = [given[method.value].value for given in self.given if method.value in given]
        return len(values) == len(self.calls) and all(super(Wrapped, self)._is_post(one) for one in values)

    def _copied(self) -> Edits:
        """Return edits that leave the function as it is, and give the calls a copy of it."""
        function = self.wrapper.function
        inside = set(walk(function))
        if any(call in inside for call in self.calls):
            raise UndecidedError("the function that sends it calls itself")
        name = f"{function.name.value}{_COPY}"
        if any(isinstance(one, cst.Name) and one.value == name for one in walk(self.module)):
            raise UndecidedError(f"the name {name} is taken")
        inner: Edits = {node: edit for node, edit in self.edits.items() if node in inside}
        if any(isinstance(node, cst.FunctionDef) for node in inner):
            raise UndecidedError("the function that sends it would change as a whole")
        copy = cst.ensure_type(function.visit(Apply(inner)), cst.FunctionDef).with_changes(
            name=cst.Name(name)
        )
        if not copy.leading_lines:
            copy = copy.with_changes(leading_lines=[cst.EmptyLine(indent=False)])
        outer: Edits = {node: edit for node, edit in self.edits.items() if node not in inside}
        outer[function] = lambda new: cst.FlattenSentinel([new, copy])
        for call in self.calls:
            outer[call.func] = _renamed(name)
        return outer


def _renamed(name: str) -> Edit:
    def edit(new: cst.CSTNode) -> cst.CSTNode:
        if isinstance(new, cst.Attribute):
            return new.with_changes(attr=cst.Name(name))
        return cst.Name(name)

    return edit


def _parameters(function: cst.FunctionDef, context: Context) -> list[str]:
    """Return the names of a function's parameters in their order, without `self`."""
    params = function.params
    names = [one.name.value for one in (*params.posonly_params, *params.params)]
    if isinstance(context.scope(function), cst.ClassDef):
        names = names[1:]
    return [*names, *(one.name.value for one in params.kwonly_params)]


def _last_name(node: cst.BaseExpression) -> str:
    """Return the name that a string expression ends with."""
    match node:
        case cst.FormattedString(parts=[*_, cst.FormattedStringExpression(expression=cst.Name(name))]):
            return name
        case cst.BinaryOperation(operator=cst.Add(), right=cst.Name(name)):
            return name
    return ""
