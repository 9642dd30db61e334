"""Rewriting a module. A call is rewritten with everything that reads its answer, or not at all."""

import json
from collections.abc import Callable
from typing import cast

import libcst as cst
from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider

from dify_kit.migration.finding import Parents, assigned, client, ending, imports, scope, text, uses, walk
from dify_kit.migration.report import Result, Target, Undecided

_BOM = b"\xef\xbb\xbf"
_ROUTES = {
    "/completion-messages": "completion apps keep their prompt in Dify; write the prompt into `messages`",
    "/workflows/run": "workflows have no counterpart; keep this call on Dify",
    "/files/upload": "files have no counterpart; keep this call on Dify",
    "/conversations": "conversations have no counterpart; keep the messages in the client",
    "/datasets": "datasets have no counterpart; keep this call on Dify",
}
_HARMLESS = {"raise_for_status", "status_code", "ok", "is_success", "is_error", "elapsed", "headers", "close"}
Edit = Callable[[cst.CSTNode], "cst.CSTNode | cst.FlattenSentinel[cst.CSTNode] | cst.RemovalSentinel"]
Edits = dict[cst.CSTNode, Edit]


class _UndecidedError(Exception):
    """This call cannot be moved safely."""


def migrate(source: bytes, target: Target) -> Result:
    """Move what is understood in a module's source; never raises for what it cannot read."""
    bom, code = (_BOM, source[3:]) if source.startswith(_BOM) else (b"", source)
    try:
        original = cst.parse_module(code)
        if original.bytes != code:
            return Result(source, 0, (Undecided(1, "its formatting could not be kept"),))
    except (cst.ParserSyntaxError, UnicodeError, LookupError, SyntaxError, ValueError, RecursionError):
        return Result(source, 0, (Undecided(1, "not valid Python"),))
    try:
        edits, migrated, undecided, module = _plan(original, target)
        if not migrated:
            return Result(source, 0, undecided)
        result = module.visit(_Apply(edits))
        if not imports(result, "os"):
            result = _import_os(result)
        code = result.bytes
        compile(code, "migrated", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError) as error:
        return Result(source, 0, (Undecided(1, f"could not be rewritten safely: {type(error).__name__}"),))
    return Result(bom + code, migrated, undecided)


def _plan(original: cst.Module, target: Target) -> tuple[Edits, int, tuple[Undecided, ...], cst.Module]:
    wrapper = MetadataWrapper(original)
    module = wrapper.module
    parents = cast("Parents", wrapper.resolve(ParentNodeProvider))
    positions = wrapper.resolve(PositionProvider)
    edits: Edits = {}
    migrated = 0
    undecided = []
    seen: set[cst.CSTNode] = set()
    for node in walk(module):
        reason = ""
        if isinstance(node, cst.Call):
            url = _url(node)
            seen.update(walk(url) if url else ())
            if ending(url).endswith("/chat-messages") if url else False:
                try:
                    planned = _Site(node, module, parents, target).plan()
                    reason = _merge(edits, planned)
                    migrated += not reason
                except _UndecidedError as error:
                    reason = str(error)
            elif url and _is_request(node):
                reason = next((why for route, why in _ROUTES.items() if route in ending(url)), "")
        else:
            reason = _elsewhere(node, module) if node not in seen else ""
        if reason:
            undecided.append(Undecided(positions[node].start.line, reason))
    return edits, migrated, tuple(undecided), module


def _merge(edits: Edits, planned: Edits) -> str:
    """Take a call's edits over; return why not if another call has planned one of them."""
    if planned.keys() & edits.keys():
        return "it shares a body with another call"
    edits |= planned
    return ""


def _elsewhere(node: cst.CSTNode, module: cst.Module) -> str:
    """Return why a use of Dify outside a request is undecided; empty if it is none."""
    if isinstance(node, cst.Import | cst.ImportFrom) and "dify_client" in module.code_for_node(node):
        return "the Dify client package is not rewritten; replace it by the `openai` package"
    literal = node.value if isinstance(node, cst.FormattedStringText) else text(node) or ""
    if literal.endswith("chat-messages"):
        return "the route is kept apart from the call that uses it; write it into the call"
    return ""


def _is_request(call: cst.Call) -> bool:
    names = {"get", "post", "put", "patch", "delete", "request", "stream"}
    return isinstance(call.func, cst.Attribute) and call.func.attr.value in names


def _url(call: cst.Call) -> cst.BaseExpression | None:
    for arg in call.args:
        if (arg.keyword is None or arg.keyword.value == "url") and "/" in ending(arg.value):
            return arg.value
    return None


class _Site:
    """One call of ``/chat-messages``."""

    def __init__(self, call: cst.Call, module: cst.Module, parents: Parents, target: Target) -> None:
        self.call, self.module, self.parents, self.target = call, module, parents, target
        self.scope = scope(call, parents)
        self.edits: Edits = {}

    def plan(self) -> Edits:
        """Return the edits of the call and of all that depends on it."""
        func = self.call.func
        if not isinstance(func, cst.Attribute) or func.attr.value != "post":
            raise _UndecidedError("only .post(...) of requests and httpx is understood")
        kind = client(func.value, self.module, self.parents)
        if kind is None:
            raise _UndecidedError("the HTTP client is not known to be requests or httpx")
        keywords = {arg.keyword.value: arg for arg in self.call.args if arg.keyword and not arg.star}
        positional = [arg for arg in self.call.args if arg.keyword is None]
        if any(arg.star for arg in self.call.args) or len(positional) + ("url" in keywords) != 1:
            raise _UndecidedError("its arguments are not all spelled out")
        if unknown := keywords.keys() - {"url", "headers", "json", "timeout", "verify", "stream"}:
            raise _UndecidedError(f"argument {min(unknown)} is not understood")
        if "stream" in keywords and self._code(keywords["stream"].value) != "False":
            raise _UndecidedError("streaming is not rewritten; read `choices[0].delta.content` of each event")
        if any(
            isinstance(n, cst.Name) and n.value == "os" and not self._is_module_os(n)
            for n in walk(self.module)
        ):
            raise _UndecidedError("the name `os` is something else here")
        url = (positional or [keywords["url"]])[0].value
        literal = cst.SimpleString(json.dumps(f"{self.target.base_url}/chat/completions"))
        self.edits[url] = lambda _: literal
        self._headers(keywords.get("headers"), kind)
        if "json" not in keywords:
            raise _UndecidedError("its body is not given as json=")
        self._body(keywords["json"].value)
        self._answer(self.call)
        return self.edits

    def _is_module_os(self, node: cst.Name) -> bool:
        parent = self.parents[node]
        if isinstance(parent, cst.ImportAlias):
            return (
                parent.name is node and parent.asname is None and isinstance(self.parents[parent], cst.Import)
            )
        return isinstance(parent, cst.Attribute | cst.ImportFrom)

    def _code(self, node: cst.CSTNode) -> str:
        return self.module.code_for_node(node)

    def _headers(self, arg: cst.Arg | None, kind: str) -> None:
        bearer = cst.parse_expression(f'"Bearer " + os.environ["{self.target.key_variable}"]')
        code = self.module.code
        if kind == "session" and ("auth=" in code or ".auth" in code):
            raise _UndecidedError("the session has an `auth` of its own, which would win over the header")
        if arg is None:
            if kind == "module":
                raise _UndecidedError("it has no headers, so where its key comes from is not known")
            value = cst.Dict([cst.DictElement(cst.SimpleString('"Authorization"'), bearer)])
            equal = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
            extra = cst.Arg(keyword=cst.Name("headers"), value=value, equal=equal)
            # In front of the last argument, whose comma and line break stay as they are.
            self.edits[self.call] = lambda new: cast("cst.Call", new).with_changes(
                args=[
                    *cast("cst.Call", new).args[:-1],
                    extra.with_changes(comma=cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))),
                    cast("cst.Call", new).args[-1],
                ]
            )
            return
        literal = arg.value
        if isinstance(literal, cst.Name):
            made = assigned(literal.value, self.scope, self.parents) or (
                assigned(literal.value, self.module, self.parents)
            )
            literal = made.value if made else literal
        if not isinstance(literal, cst.Dict):
            raise _UndecidedError("its headers are not a dictionary written in this file")
        elements = [e for e in literal.elements if isinstance(e, cst.DictElement)]
        keys = [e for e in elements if text(e.key) == "Authorization"]
        if len(keys) != 1 or len(elements) != len(literal.elements):
            raise _UndecidedError("its headers do not have one plain Authorization")
        if literal is arg.value:
            self._drop_token(keys[0].value)
            self.edits[keys[0].value] = lambda _: bearer
            return
        # The dictionary may serve other calls too, which stay on Dify: only this call gets another key.
        name = self._code(arg.value)
        override = cst.parse_expression(f'{{**{name}, "Authorization": {self._code(bearer)}}}')
        self.edits[arg.value] = lambda _: override

    def _drop_token(self, value: cst.BaseExpression) -> None:
        """Remove the fetching of an OAuth token that nothing but the header reads."""
        for name in {n.value for n in walk(value) if isinstance(n, cst.Name)}:
            made = assigned(name, self.scope, self.parents)
            if made is None or not isinstance(made.value, cst.Call) or made.value.args:
                continue
            if len(uses(name, self.scope, self.parents)) != 1:
                continue
            called = made.value.func
            short = called.attr.value if isinstance(called, cst.Attribute) else self._code(called)
            fetches = [
                n for n in walk(self.module) if isinstance(n, cst.FunctionDef) and n.name.value == short
            ]
            line = self.parents[made]
            alone = isinstance(line, cst.SimpleStatementLine) and len(line.body) == 1
            if alone and len(fetches) == 1 and "client_credentials" in self._code(fetches[0]):
                self.edits[line] = lambda _: cst.RemoveFromParent()

    def _body(self, value: cst.BaseExpression) -> None:
        if isinstance(value, cst.Name):
            made = assigned(value.value, self.scope, self.parents)
            if made is None or len(uses(value.value, self.scope, self.parents)) != 1:
                raise _UndecidedError("its body is built in several steps, or used twice")
            value = made.value
        if not isinstance(value, cst.Dict):
            raise _UndecidedError("its body is not a dictionary written in this function")
        seen = []
        for element in value.elements:
            if not isinstance(element, cst.DictElement) or text(element.key) is None:
                raise _UndecidedError("its body has keys that are not plain strings")
            key = text(element.key) or ""
            seen.append(key)
            self._field(key, element)
        if seen.count("query") != 1 or len(seen) != len(set(seen)):
            raise _UndecidedError("its body does not have one `query`")

    def _field(self, key: str, element: cst.DictElement) -> None:
        given = self._code(element.value)
        match key:
            case "query":
                self.edits[element] = self._query
            case "user":
                pass  # the field has the same name and meaning there
            case "response_mode":
                if text(element.value) != "blocking":
                    raise _UndecidedError(
                        "streaming is not rewritten; read `choices[0].delta.content` of each event"
                    )
                self.edits[element] = lambda new: cast("cst.DictElement", new).with_changes(
                    key=cst.SimpleString('"stream"'), value=cst.Name("False")
                )
            case "inputs" if given in {"{}", "dict()"}:
                self.edits[element] = lambda _: cst.RemoveFromParent()
            case "conversation_id" if given in {'""', "''", "None"}:
                self.edits[element] = lambda _: cst.RemoveFromParent()
            case "conversation_id":
                raise _UndecidedError("conversation_id has no counterpart; keep the messages in the client")
            case "inputs":
                raise _UndecidedError(
                    "inputs fill the app's prompt in Dify; write that prompt into `messages`"
                )
            case _:
                raise _UndecidedError(f"body field {key} has no counterpart")

    def _query(self, new: cst.CSTNode) -> cst.FlattenSentinel[cst.CSTNode]:
        element = cast("cst.DictElement", new)
        # The line break after the question is one after the model too, but not its comment.
        comma = element.comma
        if not isinstance(comma, cst.Comma) or "#" in self._code(comma):
            comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
        model = cst.DictElement(
            cst.SimpleString('"model"'),
            cst.SimpleString(json.dumps(self.target.model)),
            comma=comma,
        )
        message = cst.Dict(
            [
                cst.DictElement(
                    cst.SimpleString('"role"'),
                    cst.SimpleString('"user"'),
                    comma=cst.Comma(whitespace_after=cst.SimpleWhitespace(" ")),
                ),
                cst.DictElement(cst.SimpleString('"content"'), element.value),
            ]
        )
        messages = element.with_changes(
            key=cst.SimpleString('"messages"'), value=cst.List([cst.Element(message)])
        )
        return cst.FlattenSentinel([model, messages])

    def _answer(self, response: cst.CSTNode) -> None:
        """Follow a response to everything that reads it."""
        parent = self.parents[response]
        if isinstance(parent, cst.Await):
            self._answer(parent)
        elif isinstance(parent, cst.Attribute) and parent.value is response:
            outer = self.parents[parent]
            if parent.attr.value == "json" and isinstance(outer, cst.Call) and not outer.args:
                self._parsed(outer)
            elif parent.attr.value not in _HARMLESS:
                raise _UndecidedError(f"what reads the response's `{parent.attr.value}` is not understood")
        elif not isinstance(parent, cst.Expr):
            self._named(response, self._answer)

    def _parsed(self, data: cst.CSTNode) -> None:
        """Follow a parsed body to its ``answer``."""
        parent = self.parents[data]
        outer = self.parents[parent]
        match parent:
            case cst.Subscript(slice=[cst.SubscriptElement(slice=cst.Index(value=key))]) if (
                text(key) == "answer"
            ):
                quote = self._code(key)[-1]
                self.edits[parent] = lambda new: _content(cast("cst.Subscript", new).value, quote)
            case cst.Attribute(attr=cst.Name("get")) if isinstance(outer, cst.Call) and parent.value is data:
                if (
                    not outer.args
                    or text(outer.args[0].value) != "answer"
                    or any(a.keyword for a in outer.args)
                ):
                    raise _UndecidedError("it reads more of the response than `answer`")
                self.edits[outer] = lambda new: _content_or(cast("cst.Call", new))
            case cst.Arg() if isinstance(outer, cst.Call) and self._code(outer.func) == "print":
                pass  # shown, not read
            case _:
                self._named(data, self._parsed)

    def _named(self, value: cst.CSTNode, follow: Callable[[cst.CSTNode], None]) -> None:
        parent = self.parents[value]
        if isinstance(self.scope, cst.ClassDef):
            raise _UndecidedError("its response is an attribute of a class, which may be read anywhere")
        if isinstance(parent, cst.Assign) and isinstance(parent.targets[0].target, cst.Name):
            name = parent.targets[0].target.value
            function = isinstance(self.scope, cst.FunctionDef)
            if assigned(name, self.scope, self.parents) is parent and (
                not function or not any(isinstance(n, cst.Global | cst.Nonlocal) for n in walk(self.scope))
            ):
                for use in uses(name, self.scope, self.parents):
                    follow(use)
                return
            raise _UndecidedError(f"`{name}` is assigned more than once")
        raise _UndecidedError("where its response goes cannot be followed; read `answer` next to the call")


def _content(data: cst.BaseExpression, quote: str) -> cst.BaseExpression:
    # The author's quotes: inside an f-string the other kind would end it.
    pattern = cst.parse_expression('data["choices"][0]["message"]["content"]'.replace('"', quote))
    return cast("cst.BaseExpression", pattern.visit(_Put(data)))


def _content_or(call: cst.Call) -> cst.BaseExpression:
    """Keep the forgiving reading of ``.get("answer", default)``: a body without choices gives the default."""
    data = cast("cst.Attribute", call.func).value
    quote = cst.ensure_type(call.args[0].value, cst.SimpleString).value[-1]
    start = cst.parse_expression('data.get("choices", [{}])[0].get("message", {}).get'.replace('"', quote))
    content = call.args[0].with_changes(value=cst.SimpleString(f"{quote}content{quote}"))
    return call.with_changes(
        func=cast("cst.BaseExpression", start.visit(_Put(data))), args=[content, *call.args[1:]]
    )


class _Put(cst.CSTTransformer):
    def __init__(self, data: cst.BaseExpression) -> None:
        super().__init__()
        self.data = data

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.BaseExpression:  # noqa: N802
        return self.data if original_node.value == "data" else updated_node


class _Apply(cst.CSTTransformer):
    def __init__(self, edits: Edits) -> None:
        super().__init__()
        self.edits = edits

    def on_leave(  # type: ignore[override]  # an edit returns what fits its place
        self, original_node: cst.CSTNode, updated_node: cst.CSTNode
    ) -> cst.CSTNode | cst.FlattenSentinel[cst.CSTNode] | cst.RemovalSentinel:
        """Replace a planned node, its children being done."""
        edit = self.edits.get(original_node)
        return edit(updated_node) if edit else updated_node


def _import_os(module: cst.Module) -> cst.Module:
    place = 0
    for index, line in enumerate(module.body):
        first = line.body[0] if isinstance(line, cst.SimpleStatementLine) else None
        docstring = index == 0 and isinstance(first, cst.Expr) and isinstance(first.value, cst.SimpleString)
        future = isinstance(first, cst.ImportFrom) and getattr(first.module, "value", "") == "__future__"
        if not docstring and not future:
            break
        place = index + 1
    statement = cst.parse_statement("import os")
    return module.with_changes(body=[*module.body[:place], statement, *module.body[place:]])
