"""Rewriting a module. A call is rewritten with everything that reads its answer, or not at all."""

from collections.abc import Callable
from typing import cast

import libcst as cst
from libcst.helpers import get_full_name_for_node
from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider

from dify_kit.migration import packages
from dify_kit.migration.calls import Site
from dify_kit.migration.finding import Parents, ending, imports, text, walk
from dify_kit.migration.plan import Context, Edits, UndecidedError
from dify_kit.migration.report import Result, Target, Undecided

_BOM = b"\xef\xbb\xbf"
_ROUTES = {
    "/completion-messages": "completion apps keep their prompt in Dify; write the prompt into `messages`",
    "/workflows/run": "workflows have no counterpart; keep this call on Dify",
    "/files/upload": "files have no counterpart; keep this call on Dify",
    "/conversations": "conversations have no counterpart; keep the messages in the client",
    "/datasets": "datasets have no counterpart; keep this call on Dify",
}
# Of `dify-oapi`, `dify-oapi2`, `dify-api-python` and `dify-user-client`.
_OTHER_PACKAGES = {"dify_oapi", "dify_api_python", "dify_user_client"}


def migrate(source: bytes, target: Target, shared: Callable[[str], bool] = lambda _: False) -> Result:
    """Move what is understood in a module's source; never raises for what it cannot read.

    `shared` tells whether another file has a name: what such a function returns is left as it is.
    """
    bom, code = (_BOM, source[3:]) if source.startswith(_BOM) else (b"", source)
    try:
        original = cst.parse_module(code)
        if original.bytes != code:
            return Result(source, 0, (Undecided(1, "its formatting could not be kept"),))
    except (cst.ParserSyntaxError, UnicodeError, LookupError, SyntaxError, ValueError, RecursionError):
        return Result(source, 0, (Undecided(1, "not valid Python"),))
    try:
        edits, migrated, undecided, module = _plan(original, target, shared)
        if not migrated:
            return Result(source, 0, undecided)
        result = module.visit(_Apply(edits))
        if not imports(result, "os"):
            result = _import_os(result)
        code = result.bytes
        # Not every string of nodes is a program: what Python refuses stays as it was.
        compile(code, "migrated", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError) as error:
        return Result(source, 0, (Undecided(1, f"could not be rewritten safely: {type(error).__name__}"),))
    return Result(bom + code, migrated, undecided)


def _plan(
    original: cst.Module, target: Target, shared: Callable[[str], bool]
) -> tuple[Edits, int, tuple[Undecided, ...], cst.Module]:
    wrapper = MetadataWrapper(original)
    module = wrapper.module
    context = Context(module, cast("Parents", wrapper.resolve(ParentNodeProvider)), target, shared)
    positions = wrapper.resolve(PositionProvider)
    moved = packages.plan(context)
    edits, migrated = moved.edits, moved.migrated
    undecided = [(positions[node].start.line, reason) for node, reason in moved.problems.items()]
    seen: set[cst.CSTNode] = set()
    for node in walk(module):
        reason = ""
        if isinstance(node, cst.Call):
            url = _url(node)
            seen.update(walk(url) if url else ())
            if ending(url).endswith("/chat-messages") if url else False:
                try:
                    reason = _merge(edits, Site(node, context).plan())
                    migrated += not reason
                except UndecidedError as error:
                    reason = str(error)
            elif url and _is_request(node):
                reason = next((why for route, why in _ROUTES.items() if route in ending(url)), "")
        else:
            reason = _elsewhere(node) if node not in seen else ""
        if reason:
            undecided.append((positions[node].start.line, reason))
    return edits, migrated, tuple(Undecided(*one) for one in sorted(undecided)), module


def _merge(edits: Edits, planned: Edits) -> str:
    """Take a call's edits over; return why not if another call has planned one of them."""
    if planned.keys() & edits.keys():
        return "it shares a body with another call"
    edits |= planned
    return ""


def _elsewhere(node: cst.CSTNode) -> str:
    """Return why a use of Dify outside a request is undecided; empty if it is none."""
    if isinstance(node, cst.Import | cst.ImportFrom):
        names = [node.module] if isinstance(node, cst.ImportFrom) else [alias.name for alias in node.names]
        found = {
            (get_full_name_for_node(name) or "").split(".")[0] for name in names if name
        } & _OTHER_PACKAGES
        return f"the package {min(found)} is not rewritten; use the `openai` package" if found else ""
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
