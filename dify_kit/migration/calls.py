"""Rewriting one call of Dify's chat route."""

import json
from typing import cast

import libcst as cst

from dify_kit.migration.finding import Client, assigned, client, text, uses, walk
from dify_kit.migration.plan import Context, Edits, UndecidedError
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
