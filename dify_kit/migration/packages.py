"""Rewriting clients that use Dify's own Python packages, which all call their module `dify_client`.

Read from the packages themselves (2026-11-25):

- `dify-client` 0.1: `ChatClient(api_key).create_chat_message(...)` returns a response of requests
- `dify-python-sdk` 0.1: the same call, `AsyncChatClient` too, with more settings; responses are of httpx
- `dify-client-python` 1.0: `Client` and `AsyncClient`, `chat_messages(ChatRequest(...))` returns objects

The first two become calls by requests and httpx, so what reads their responses stays; the third uses `openai`.
A module is rewritten when everything that it does with the package is understood, else not at all.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import libcst as cst
from libcst.helpers import get_full_name_for_node

from dify_kit.migration.calls import check_os
from dify_kit.migration.finding import bindings, imports, origin, origins, text, uses, walk
from dify_kit.migration.plan import Context, Edit, Edits, UndecidedError, put, remove
from dify_kit.migration.reasons import reason_of
from dify_kit.migration.responses import Reader
from dify_kit.migration.streams import Events, Shape, given_name

_PACKAGE = "dify_client"
_HTTP = {"ChatClient": "httpx.Client", "AsyncChatClient": "httpx.AsyncClient"}
_OBJECTS = {"Client": "OpenAI", "AsyncClient": "AsyncOpenAI"}
_PARAMETERS = ("inputs", "query", "user", "response_mode", "conversation_id", "files")
_SETTINGS = {"api_key", "base_url", "api_base", "timeout", "max_retries", "retry_delay", "enable_logging"}
_EMPTY = {"{}", "dict()", "[]", "None", '""', "''"}
# The default timeout of `dify-python-sdk`.
_TIMEOUT_SECONDS = "60.0"
_PASSED_ON = "where its client goes cannot be followed"


@dataclass
class Found:
    """What a module does with the package: the edits and the number of calls, or problems by node."""

    edits: Edits = field(default_factory=dict)
    migrated: int = 0
    problems: dict[cst.CSTNode, str] = field(default_factory=dict)


def plan(context: Context) -> Found:
    """Plan the move of a module from Dify's packages."""
    lines = [node for node in walk(context.module) if _imports_package(node)]
    if not lines:
        return Found()
    found = Found()
    module = _Module(context, found)
    module.plan(lines)
    if found.problems:
        return Found(problems=found.problems)
    if not found.migrated:
        return Found(
            problems={lines[0]: "nothing is asked by its chat client here; use the `openai` package"}
        )
    try:
        check_os(context)
        module.replace_imports(lines)
    except UndecidedError as error:
        return Found(problems={lines[0]: str(error)})
    return found


def _imports_package(node: cst.CSTNode) -> bool:
    if isinstance(node, cst.Import):
        return any((get_full_name_for_node(a.name) or "").split(".")[0] == _PACKAGE for a in node.names)
    if isinstance(node, cst.ImportFrom) and node.module is not None and not node.relative:
        return (get_full_name_for_node(node.module) or "").split(".")[0] == _PACKAGE
    return False


class _Module:
    def __init__(self, context: Context, found: Found) -> None:
        self.context, self.found = context, found
        self.needs: set[str] = set()
        self.understood: set[cst.CSTNode] = set()

    def plan(self, lines: list[cst.CSTNode]) -> None:
        """Plan every client, then look for uses of the package that are none of theirs."""
        for node in list(walk(self.context.module)):
            if isinstance(node, cst.Call) and (name := self._class(node.func)):
                self.understood.add(node.func)
                self._try(node, partial(self._client, node, name))
        for line in lines:
            names = getattr(line, "names", ())
            if isinstance(line, cst.Import) or isinstance(names, cst.ImportStar):
                self.found.problems[line] = "import the classes of the Dify client package by name"
                continue
            for alias in names:
                bound = alias.asname.name if alias.asname else alias.name
                for use in uses(bound.value, self.context.module, self.context.parents):
                    if not self._is_understood(use):
                        self.found.problems[use] = reason_of(str(get_full_name_for_node(alias.name)))

    def replace_imports(self, lines: list[cst.CSTNode]) -> None:
        """Import what the new code needs in place of the package."""
        module, parents = self.context.module, self.context.parents
        statements = []
        for name in sorted(self.needs):
            if name in {"requests", "httpx"}:
                if imports(module, name):
                    continue
                statements.append(f"import {name}")
            else:
                statements.append(f"from openai import {name}")
            if bindings(name, module, parents) or name in origins(module):
                raise UndecidedError(f"the name `{name}` is something else here")
        for place, line in enumerate(lines):
            statement = parents[line]
            if not isinstance(statement, cst.SimpleStatementLine) or len(statement.body) != 1:
                raise UndecidedError("its import shares a line with other code")
            if place or not statements:
                self.found.edits[statement] = remove(statement, self.context)
                continue
            made = [cst.parse_statement(one) for one in statements]
            first = made[0].with_changes(
                leading_lines=statement.leading_lines, trailing_whitespace=statement.trailing_whitespace
            )
            self.found.edits[statement] = _in_place((first, *made[1:]))

    def _class(self, node: cst.CSTNode) -> str:
        where = origin(node, self.context.module, self.context.parents)
        package, _, name = where.rpartition(".")
        known = package.split(".")[0] == _PACKAGE and name in {*_HTTP, *_OBJECTS}
        return name if known else ""

    def _try(self, node: cst.CSTNode, plan_it: Callable[[], None]) -> None:
        try:
            plan_it()
        except UndecidedError as error:
            self.found.problems.setdefault(node, str(error))

    def _is_understood(self, node: cst.CSTNode) -> bool:
        while isinstance(node, cst.BaseExpression):
            if node in self.understood:
                return True
            node = self.context.parents[node]
        return False

    # One client.

    def _client(self, made: cst.Call, name: str) -> None:
        keywords = {a.keyword.value: a for a in made.args if a.keyword and not a.star}
        if any(a.star for a in made.args) or keywords.keys() - _SETTINGS:
            raise UndecidedError("the settings of its client are not understood")
        new = self._constructor(made, name, keywords)
        self.found.edits[made] = lambda _: cst.parse_expression(new)
        library = new.split(".")[0] if name in _HTTP else ""
        for use in self._uses(made):
            self._use(use, library)

    def _constructor(self, made: cst.Call, name: str, keywords: dict[str, cst.Arg]) -> str:
        if name in _OBJECTS:
            self.needs.add(_OBJECTS[name])
            base = json.dumps(self.context.target.base_url)
            return f"{_OBJECTS[name]}(base_url={base}, api_key={self.context.key})"
        parent = self.context.parents[made]
        plain = name == "ChatClient" and not keywords.keys() - {"api_key"} and len(made.args) == 1
        if plain and not isinstance(parent, cst.WithItem):
            self.needs.add("requests")
            return "requests.Session()"
        self.needs.add("httpx")
        timeout = self.context.code(keywords["timeout"].value) if "timeout" in keywords else _TIMEOUT_SECONDS
        return f"{_HTTP[name]}(timeout={timeout})"

    def _uses(self, made: cst.Call) -> list[cst.CSTNode]:
        parents = self.context.parents
        parent = parents[made]
        if isinstance(parent, cst.Attribute):
            return [made]
        target = parent.targets[0].target if isinstance(parent, cst.Assign) else None
        if not isinstance(target, cst.Attribute):
            name = given_name(made, self.context)
            within = self.context.scope(made)
            if isinstance(within, cst.Module) and self.context.shared(name):
                raise UndecidedError("another file uses its client")
            return list(uses(name, within, parents))
        name = self.context.code(target)
        same = [
            n
            for n in walk(self.context.module)
            if isinstance(n, cst.Attribute) and get_full_name_for_node(n) == name and n is not target
        ]
        elsewhere = any(
            isinstance(n, cst.Attribute)
            and n.attr.value == target.attr.value
            and n is not target
            and n not in same
            for n in walk(self.context.module)
        )
        if elsewhere:
            raise UndecidedError(_PASSED_ON)
        if any(isinstance(parents[n], cst.AssignTarget) for n in same) or not name.startswith("self."):
            raise UndecidedError(f"`{name}` is assigned more than once")
        return list(same)

    def _use(self, use: cst.CSTNode, library: str) -> None:
        parents = self.context.parents
        attribute = parents[use]
        outer = parents[attribute]
        if not isinstance(attribute, cst.Attribute) or attribute.value is not use:
            raise UndecidedError(_PASSED_ON)
        name = attribute.attr.value
        if name in {"base_url", "api_base"} and isinstance(outer, cst.AssignTarget):
            statement = parents[outer]
            line = parents[statement]
            if len(getattr(statement, "targets", ())) != 1 or len(getattr(line, "body", ())) != 1:
                raise UndecidedError("its address is set together with something else")
            self.found.edits[line] = remove(line, self.context)
        elif not isinstance(outer, cst.Call) or outer.func is not attribute:
            self.found.problems[attribute] = reason_of(name)
        elif library and name == "create_chat_message":
            self._try(outer, lambda: self._http(outer, library))
        elif not library and name in {"chat_messages", "achat_messages"}:
            self._try(outer, lambda: self._objects(outer))
        elif name not in {"close", "aclose"}:
            self.found.problems[attribute] = reason_of(name)

    # A call that returns a response.

    def _http(self, call: cst.Call, library: str) -> None:
        places = self._places(call, _PARAMETERS)
        self._nothing_else(call, places)
        mode = "blocking"
        if "response_mode" in places:
            mode = text(call.args[places["response_mode"]].value) or ""
        reader = Reader(self.context, self.found.edits, library)
        reader.response(call)
        stream = _streams(mode, lines=reader.lines, whole=reader.whole)
        target = self.context.target
        waits = ", stream=True" if stream and library == "requests" else ""
        pattern = (
            f"CLIENT.post({json.dumps(target.base_url + '/chat/completions')}, "
            f'headers={{"Authorization": "Bearer " + {self.context.key}}}, '
            f'json={{"model": {json.dumps(target.model)}, "messages": [{{"role": "user", "content": QUERY}}], '
            f'"user": USER, "stream": {stream}}}{waits})'
        )
        self._rewrite(call, pattern, places)

    def _rewrite(self, call: cst.Call, pattern: str, places: dict[str, int]) -> None:
        def edit(new: cst.CSTNode) -> cst.CSTNode:
            changed = cst.ensure_type(new, cst.Call)
            func = cst.ensure_type(changed.func, cst.Attribute)
            query, user = (changed.args[places[name]].value for name in ("query", "user"))
            return put(pattern, CLIENT=func.value, QUERY=query, USER=user)

        self.found.edits[call] = edit
        self.found.migrated += 1

    def _places(self, call: cst.Call, names: tuple[str, ...]) -> dict[str, int]:
        places: dict[str, int] = {}
        for place, arg in enumerate(call.args):
            name = arg.keyword.value if arg.keyword else names[min(place, len(names) - 1)]
            if arg.star or name not in names or name in places:
                raise UndecidedError("its arguments are not all understood")
            places[name] = place
        if not {"query", "user"} <= places.keys():
            raise UndecidedError("its arguments are not all spelled out")
        return places

    def _nothing_else(self, call: cst.Call, places: dict[str, int]) -> None:
        for name, why in (
            ("inputs", "inputs fill the app's prompt in Dify; write that prompt into `messages`"),
            ("conversation_id", "conversation_id has no counterpart; keep the messages in the client"),
            ("files", "files have no counterpart; keep this call on Dify"),
        ):
            if name in places and self.context.code(call.args[places[name]].value) not in _EMPTY:
                raise UndecidedError(why)

    # A call that returns objects.

    def _objects(self, call: cst.Call) -> None:
        request = call.args[0].value if call.args and not call.args[0].star else None
        more = call.args[1:]
        if request is None or any(not a.keyword or a.keyword.value != "timeout" for a in more):
            raise UndecidedError("its arguments are not all understood")
        made = request
        if isinstance(request, cst.Name):
            assign = next(
                (
                    self.context.parents[self.context.parents[one]]
                    for one in bindings(request.value, self.context.scope(call), self.context.parents)
                ),
                None,
            )
            made = getattr(assign, "value", request)
            if not isinstance(made, cst.Call) or given_name(made, self.context) != request.value:
                raise UndecidedError("its request is not written in this function")
            if len(uses(request.value, self.context.scope(call), self.context.parents)) != 1:
                raise UndecidedError("its request is used more than once")
        if not isinstance(made, cst.Call) or not self._is_of_package(made.func, "ChatRequest"):
            raise UndecidedError("its request is not written in this function")
        places = self._places(made, ("query", "inputs", "response_mode", "user", "conversation_id", "files"))
        if any(a.keyword is None for a in made.args):
            raise UndecidedError("its arguments are not all spelled out")
        self.understood.add(made.func)
        self._nothing_else(made, places)
        stream = self._mode(made, places)
        self._read(call, streams=stream)
        self._create(call, made, places, stream=stream)

    def _mode(self, made: cst.Call, places: dict[str, int]) -> bool:
        mode = made.args[places["response_mode"]].value if "response_mode" in places else None
        if isinstance(mode, cst.Attribute) and self._is_of_package(mode.value, "ResponseMode"):
            self.understood.add(mode)
            name = mode.attr.value.lower()
        else:
            name = text(mode) or "" if mode else ""
        if name not in {"streaming", "blocking"}:
            raise UndecidedError("its response_mode is not spelled out")
        return name == "streaming"

    def _is_of_package(self, node: cst.CSTNode, name: str) -> bool:
        where = origin(node, self.context.module, self.context.parents)
        return where.split(".")[0] == _PACKAGE and where.rpartition(".")[2] == name

    def _create(self, call: cst.Call, made: cst.Call, places: dict[str, int], *, stream: bool) -> None:
        model = json.dumps(self.context.target.model)
        message = '[{"role": "user", "content": QUERY}]'
        apart = made is not call.args[0].value
        if apart:
            body = f'{{"model": {model}, "messages": {message}, "user": USER, "stream": {stream}}}'
            self.found.edits[made] = lambda new: _with_question(body, new, places)

        def edit(new: cst.CSTNode) -> cst.CSTNode:
            changed = cst.ensure_type(new, cst.Call)
            client = cst.ensure_type(changed.func, cst.Attribute).value
            func = put("CLIENT.chat.completions.create", CLIENT=client)
            if apart:
                args = [changed.args[0].with_changes(star="**"), *changed.args[1:]]
                return changed.with_changes(func=func, args=args)
            pattern = f"create(model={model}, messages={message}, user=USER, stream={stream})"
            asked = _with_question(pattern, changed.args[0].value, places)
            args = [*cst.ensure_type(asked, cst.Call).args, *changed.args[1:]]
            comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
            args = [*(one.with_changes(comma=comma) for one in args[:-1]), args[-1]]
            return changed.with_changes(func=func, args=args)

        self.found.edits[call] = edit
        self.found.migrated += 1

    def _read(self, answer: cst.CSTNode, *, streams: bool) -> None:
        """Follow an answer, or a stream of them."""
        parent = self.context.parents[answer]
        outer = self.context.parents[parent]
        match parent:
            case cst.Await():
                self._read(parent, streams=streams)
            case cst.Attribute(attr=cst.Name("answer")) if not streams and parent.value is answer:
                self.found.edits[parent] = lambda new: put(
                    "data.choices[0].message.content", data=cst.ensure_type(new, cst.Attribute).value
                )
            case cst.For() if streams and parent.iter is answer and isinstance(parent.target, cst.Name):
                self._chunks(parent, parent.target.value)
            case cst.Arg() if isinstance(outer, cst.Call) and self.context.code(outer.func) == "print":
                pass  # shown, not read
            case cst.Expr():
                pass
            case _:
                name = given_name(answer, self.context)
                for use in uses(name, self.context.scope(answer), self.context.parents):
                    self._read(use, streams=streams)

    def _chunks(self, loop: cst.For, name: str) -> None:
        within = self.context.scope(loop)
        if len(bindings(name, within, self.context.parents)) != 1:
            raise UndecidedError(f"`{name}` is assigned more than once")
        events = Events(self.context, self.found.edits, Shape(is_object=True))
        for use in uses(name, within, self.context.parents):
            events.chunk(use)
        self.understood |= events.literals


def _in_place(statements: Sequence[cst.CSTNode]) -> Edit:
    return lambda _: cst.FlattenSentinel(statements)


def _with_question(pattern: str, request: cst.CSTNode, places: dict[str, int]) -> cst.BaseExpression:
    args = cst.ensure_type(request, cst.Call).args
    return put(pattern, QUERY=args[places["query"]].value, USER=args[places["user"]].value)


def _streams(mode: str, *, lines: bool, whole: bool) -> bool:
    if mode not in {"blocking", "streaming"}:
        raise UndecidedError("its response_mode is not spelled out")
    if lines and (whole or mode == "blocking"):
        raise UndecidedError("it reads lines of an answer that is not a stream")
    return mode == "streaming" and not whole
