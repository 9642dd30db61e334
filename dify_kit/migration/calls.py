"""Rewriting one call of Dify's chat route, with everything that reads its answer."""

import json
from collections.abc import Callable
from typing import cast

import libcst as cst

from dify_kit.migration.finding import Client, assigned, client, makers, text, uses, walk
from dify_kit.migration.plan import Context, Edits, UndecidedError, put
from dify_kit.migration.streams import Lines, given_name

_HARMLESS = {
    *("raise_for_status", "status_code", "status", "ok", "is_success", "is_error", "elapsed", "headers"),
    *("close", "aclose", "reason", "reason_phrase", "url", "request"),
}
_ARGUMENTS = {"url", "headers", "json", "timeout", "verify", "stream", "data", "content", "ssl"}
_FAR = "where its response goes cannot be followed; read `answer` next to the call"


class Reader:
    """Follows a response to everything that reads it. `lines` and `whole` tell afterwards how it is read."""

    def __init__(self, context: Context, edits: Edits, library: str) -> None:
        self.context, self.edits, self.library = context, edits, library
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
        made = [receiver] if isinstance(receiver, cst.Call) else makers(receiver, self.context.module)
        return bool(made) and all(
            isinstance(one, cst.Call) and self.context.code(one.func) == owner.name.value
            for one in made or ()
        )

    def _call_of(self, mention: cst.CSTNode) -> cst.CSTNode:
        call = self.context.parents[mention]
        if not isinstance(call, cst.Call) or call.func is not mention:
            raise UndecidedError(_FAR)
        return call


class Site:
    """One call of ``/chat-messages``."""

    def __init__(self, call: cst.Call, context: Context) -> None:
        self.call, self.context = call, context
        self.module, self.parents, self.target = context.module, context.parents, context.target
        self.scope = context.scope(call)
        self.edits: Edits = {}
        self.mode: cst.DictElement | None = None

    def plan(self) -> Edits:
        """Return the edits of the call and of all that depends on it."""
        found, url, keywords = self._arguments()
        check_os(self.context)
        literal = cst.SimpleString(json.dumps(f"{self.target.base_url}/chat/completions"))
        self.edits[url] = lambda _: literal
        self._headers(keywords.get("headers"), found)
        self._body(self._given_body(keywords))
        reader = Reader(self.context, self.edits, found.library)
        reader.response(self.call)
        self._mode(reader)
        return self.edits

    def _arguments(self) -> tuple[Client, cst.BaseExpression, dict[str, cst.Arg]]:
        func = self.call.func
        if not isinstance(func, cst.Attribute) or func.attr.value not in {"post", "stream"}:
            raise UndecidedError(
                "only .post(...) and .stream(...) of requests, httpx and aiohttp are understood"
            )
        found = client(func.value, self.module, self.parents)
        if found is None:
            raise UndecidedError("the HTTP client is not known to be of requests, httpx or aiohttp")
        keywords = {arg.keyword.value: arg for arg in self.call.args if arg.keyword and not arg.star}
        positional = [arg for arg in self.call.args if arg.keyword is None]
        if func.attr.value == "stream" and found.library == "httpx" and positional:
            if text(positional[0].value) != "POST":
                raise UndecidedError("its method is not POST")
            positional = positional[1:]
        elif func.attr.value == "stream":
            raise UndecidedError("its arguments are not all spelled out")
        if any(arg.star for arg in self.call.args) or len(positional) + ("url" in keywords) != 1:
            raise UndecidedError("its arguments are not all spelled out")
        if unknown := keywords.keys() - _ARGUMENTS:
            raise UndecidedError(f"argument {min(unknown)} is not understood")
        if "stream" in keywords and self._code(keywords["stream"].value) not in {"True", "False"}:
            raise UndecidedError("whether it streams is not known")
        return found, (positional or [keywords["url"]])[0].value, keywords

    def _given_body(self, keywords: dict[str, cst.Arg]) -> cst.BaseExpression:
        given = [keywords[name].value for name in ("json", "data", "content") if name in keywords]
        if len(given) != 1:
            raise UndecidedError("its body is not given as json=")
        body = given[0]
        if "json" in keywords:
            return body
        if isinstance(body, cst.Call) and self._code(body.func) == "json.dumps" and len(body.args) == 1:
            return body.args[0].value
        raise UndecidedError("its body is not given as json=")

    def _mode(self, reader: Reader) -> None:
        """Ask for a stream where one is read."""
        streams = self.mode is not None and text(self.mode.value) == "streaming"
        if reader.lines and (reader.whole or not streams):
            raise UndecidedError("it reads lines of an answer that is not a stream")
        if self.mode is not None:
            # Who asks Dify for a stream and reads it as one JSON document gets nothing; a whole answer works.
            value = cst.Name(str(streams and not reader.whole))
            self.edits[self.mode] = lambda new: cast("cst.DictElement", new).with_changes(
                key=cst.SimpleString('"stream"'), value=value
            )

    def _code(self, node: cst.CSTNode) -> str:
        return self.module.code_for_node(node)

    def _headers(self, arg: cst.Arg | None, found: Client) -> None:
        bearer = cst.parse_expression(f'"Bearer " + {self.context.key}')
        code = self.module.code
        if not found.is_module and ("auth=" in code or ".auth" in code):
            raise UndecidedError("the session has an `auth` of its own, which would win over the header")
        if arg is None:
            if found.is_module:
                raise UndecidedError("it has no headers, so where its key comes from is not known")
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
            literal = (made.value if made else None) or literal
        if not isinstance(literal, cst.Dict):
            raise UndecidedError("its headers are not a dictionary written in this file")
        elements = [e for e in literal.elements if isinstance(e, cst.DictElement)]
        keys = [e for e in elements if text(e.key) == "Authorization"]
        if len(keys) != 1 or len(elements) != len(literal.elements):
            raise UndecidedError("its headers do not have one plain Authorization")
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
                raise UndecidedError("its body is built in several steps, or used twice")
            value = cast("cst.BaseExpression", made.value)
        if not isinstance(value, cst.Dict):
            raise UndecidedError("its body is not a dictionary written in this function")
        seen = []
        for element in value.elements:
            if not isinstance(element, cst.DictElement) or text(element.key) is None:
                raise UndecidedError("its body has keys that are not plain strings")
            key = text(element.key) or ""
            seen.append(key)
            self._field(key, element)
        if seen.count("query") != 1 or len(seen) != len(set(seen)):
            raise UndecidedError("its body does not have one `query`")

    def _field(self, key: str, element: cst.DictElement) -> None:
        given = self._code(element.value)
        match key:
            case "query":
                self.edits[element] = self._query
            case "user":
                pass  # the field has the same name and meaning there
            case "response_mode":
                if text(element.value) not in {"blocking", "streaming"}:
                    raise UndecidedError("its response_mode is not spelled out")
                self.mode = element
            case "inputs" if given in {"{}", "dict()"}:
                self.edits[element] = lambda _: cst.RemoveFromParent()
            case "conversation_id" if given in {'""', "''", "None"}:
                self.edits[element] = lambda _: cst.RemoveFromParent()
            case "conversation_id":
                raise UndecidedError("conversation_id has no counterpart; keep the messages in the client")
            case "inputs":
                raise UndecidedError(
                    "inputs fill the app's prompt in Dify; write that prompt into `messages`"
                )
            case _:
                raise UndecidedError(f"body field {key} has no counterpart")

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


def check_os(context: Context) -> None:
    """Refuse a module in which `os` is something else than the module of that name."""
    for node in walk(context.module):
        if not isinstance(node, cst.Name) or node.value != "os":
            continue
        parent = context.parents[node]
        imported = isinstance(parent, cst.ImportAlias) and parent.name is node and parent.asname is None
        if imported and isinstance(context.parents[parent], cst.Import):
            continue
        if not isinstance(parent, cst.Attribute | cst.ImportFrom):
            raise UndecidedError("the name `os` is something else here")


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
