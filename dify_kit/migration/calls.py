"""Rewriting one call of Dify's chat route."""

import json
from typing import cast

import libcst as cst

from dify_kit.migration.finding import Client, assigned, client, origin, text, uses, walk
from dify_kit.migration.headers import Headers, headers_of
from dify_kit.migration.plan import Context, Edits, UndecidedError
from dify_kit.migration.report import Target
from dify_kit.migration.responses import Reader

_ARGUMENTS = {"url", "headers", "json", "timeout", "verify", "stream", "data", "content", "ssl"}


class Site:
    """One call of ``/chat-messages``."""

    def __init__(self, call: cst.Call, context: Context) -> None:
        self.call, self.context = call, context
        self.module, self.parents, self.target = context.module, context.parents, context.target
        self.scope = context.scope(call)
        self.edits: Edits = {}
        self.mode: cst.DictElement | None = None
        # Whether it may change what moved calls alone read, such as a dictionary of headers.
        self.alone = True
        self.headers: Headers | None = None

    def plan(self) -> Edits:
        """Return the edits of the call and of all that depends on it."""
        found, url, keywords = self._arguments()
        check_os(self.context)
        literal = new_url(self.target)
        self.edits[url] = lambda _: literal
        self._headers(keywords.get("headers"), found)
        self._body(self._given_body(keywords))
        reader = Reader(self.context, self.edits, found.library)
        reader.response(self.call)
        self._mode(reader)
        return self.edits

    def _arguments(self) -> tuple[Client, cst.BaseExpression, dict[str, cst.Arg]]:
        func = self.call.func
        if not isinstance(func, cst.Attribute) or func.attr.value not in {"post", "stream", "request"}:
            raise UndecidedError(
                "only .post(...), .request(...) and .stream(...) of requests, httpx and aiohttp are understood"
            )
        found = client(func.value, self.module, self.parents)
        if found is None:
            raise UndecidedError("the HTTP client is not known to be of requests, httpx or aiohttp")
        keywords = {arg.keyword.value: arg for arg in self.call.args if arg.keyword and not arg.star}
        positional = [arg for arg in self.call.args if arg.keyword is None]
        if func.attr.value == "request" or (func.attr.value == "stream" and found.library == "httpx"):
            method = keywords.pop("method", None) or (positional.pop(0) if positional else None)
            if method is None or not self._is_post(method.value):
                raise UndecidedError("its method is not POST")
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
        return given[0] if "json" in keywords else self._dumped(given[0])

    def _dumped(self, body: cst.BaseExpression) -> cst.BaseExpression:
        """Return what `json.dumps` makes a body of, also where a name holds it, or its bytes are sent."""
        match body:
            case cst.Name():
                made = assigned(body.value, self.scope, self.parents)
                if made and made.value and len(uses(body.value, self.scope, self.parents)) == 1:
                    return self._dumped(made.value)
            case cst.Call(func=cst.Attribute(value=dumped, attr=cst.Name("encode"))):
                return self._dumped(dumped)
            case cst.Call(args=[first, *others]) if (
                origin(body.func, self.module, self.parents) == "json.dumps"
                and first.keyword is None
                and all(one.keyword and not one.star for one in others)
            ):
                return first.value
        raise UndecidedError("its body is not given as json=")

    def _is_post(self, method: cst.BaseExpression) -> bool:
        return (text(method) or "").upper() == "POST"

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
        bearer = new_bearer(self.context)
        code = self.module.code
        if not found.is_module and ("auth=" in code or ".auth" in code):
            raise UndecidedError("the session has an `auth` of its own, which would win over the header")
        if arg is None:
            if found.is_module:
                raise UndecidedError("it has no headers, so where its key comes from is not known")
            self._add_headers(bearer)
            return
        headers = headers_of(arg.value, self.context)
        if headers.in_place:
            self._drop_token(headers.authorization)
            self.edits[headers.authorization] = lambda _: bearer
            return
        # The dictionary may serve other calls too, which stay on Dify: only this call gets another key.
        self.headers = headers
        name = self._code(arg.value)
        override = cst.parse_expression(f'{{**{name}, "Authorization": {self._code(bearer)}}}')
        self.edits[arg.value] = lambda _: override

    def _add_headers(self, bearer: cst.BaseExpression) -> None:
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


def new_url(target: Target) -> cst.SimpleString:
    """Return the literal of the new URL."""
    return cst.SimpleString(json.dumps(f"{target.base_url}/chat/completions"))


def new_bearer(context: Context) -> cst.BaseExpression:
    """Return the expression of the new `Authorization`."""
    return cst.parse_expression(f'"Bearer " + {context.key}')


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
