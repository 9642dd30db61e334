"""Plans the rewriting of a module: its requests, the functions that send them, and the constants that they read."""

import libcst as cst
from libcst.helpers import get_full_name_for_node

from dify_kit.migration import packages
from dify_kit.migration.calls import Site, new_bearer, new_url
from dify_kit.migration.finding import ending, text, walk
from dify_kit.migration.headers import Headers
from dify_kit.migration.plan import Context, Edits, UndecidedError
from dify_kit.migration.urls import ROUTE, Address, address, repoint
from dify_kit.migration.wrappers import Wrapped, Wrapper, wrapper

_ROUTES = {
    "/completion-messages": "completion apps keep their prompt in Dify; write the prompt into `messages`",
    "/workflows/run": "workflows have no counterpart; keep this call on Dify",
    "/files/upload": "files have no counterpart; keep this call on Dify",
    "/conversations": "conversations have no counterpart; keep the messages in the client",
    "/datasets": "datasets have no counterpart; keep this call on Dify",
}
# Of `dify-oapi`, `dify-oapi2`, `dify-api-python` and `dify-user-client`.
_OTHER_PACKAGES = {"dify_oapi", "dify_api_python", "dify_user_client"}
_REQUESTS = {"get", "post", "put", "patch", "delete", "request", "stream"}


class Plan:
    """The edits of a module, how many calls they move, and why others stay, by their nodes."""

    def __init__(self, context: Context) -> None:
        moved = packages.plan(context)
        self.context, self.edits, self.migrated = context, moved.edits, moved.migrated
        self.problems: list[tuple[cst.CSTNode, str]] = list(moved.problems.items())
        self._seen: set[cst.CSTNode] = set()
        self._urls: dict[cst.CSTNode, Address] = {}
        self._headers: dict[cst.CSTNode, Headers] = {}
        self._wrappers: dict[cst.FunctionDef, tuple[Wrapper, list[cst.Call]]] = {}
        self._asks_dify = ROUTE in context.module.code
        for node in walk(context.module):
            if isinstance(node, cst.Call):
                self._call(node)
        for found, calls in self._wrappers.values():
            self._wrapped(found, calls)
        self._constants()
        for node in walk(context.module):
            if not isinstance(node, cst.Call) and node not in self._seen and (reason := _elsewhere(node)):
                self.problems.append((node, reason))

    def _call(self, call: cst.Call) -> None:
        url, where = self._where(call)
        if url is None:
            return
        self._seen.update(walk(url))
        if not where.is_chat:
            is_sent = _is_request(call) or wrapper(call, self.context)
            reason = next((why for route, why in _ROUTES.items() if route in where.ending), "")
            if is_sent and reason:
                self.problems.append((call, reason))
        elif found := wrapper(call, self.context):
            self._wrappers.setdefault(found.function, (found, []))[1].append(call)
        elif self._moved(Site(call, self.context), [call]):
            self._urls[url] = where

    def _wrapped(self, found: Wrapper, calls: list[cst.Call]) -> None:
        try:
            self._moved(Wrapped(found, calls, self.context), calls)
        except UndecidedError as error:
            self.problems += [(call, str(error)) for call in calls]

    def _moved(self, site: Site, calls: list[cst.Call]) -> bool:
        """Take the edits of calls over, or report each of them; tell which."""
        planned: Edits = {}
        reason = ""
        try:
            planned = site.plan()
        except UndecidedError as error:
            reason = str(error)
        if planned.keys() & self.edits.keys():
            reason = "it shares a body with another call"
        if reason:
            self.problems += [(call, reason) for call in calls]
            return False
        self.edits |= planned
        self.migrated += len(calls)
        if site.headers and site.alone:
            self._headers.setdefault(site.headers.authorization, site.headers)
        return True

    def _where(self, call: cst.Call) -> tuple[cst.BaseExpression | None, Address]:
        """Return the argument of a call that is a URL or a route, and where it ends."""
        for argument in call.args:
            end, keyword = ending(argument.value), argument.keyword.value if argument.keyword else ""
            if "/" in end and keyword in {"", "url"}:
                return argument.value, Address(end)
            if end.endswith(ROUTE) and (sends := wrapper(call, self.context)) and keyword in {"", sends.path}:
                return argument.value, Address(end)
            if self._asks_dify and keyword in {"", "url"} and _is_request(call):
                found = address(argument.value, self.context)
                if found.is_chat:
                    return argument.value, found
        return None, Address("")

    def _constants(self) -> None:
        planned: Edits = repoint(self._urls, self.context, new_url(self.context.target))
        for node, edit in planned.items():
            if node not in self.edits or node in self._urls:
                self.edits[node] = edit
                self._seen.update(walk(node))
        bearer = new_bearer(self.context)
        for key, headers in self._headers.items():
            if headers.uses and set(headers.uses) <= self.edits.keys() and key not in self.edits:
                self.edits[key] = lambda _: bearer
                for use in headers.uses:
                    del self.edits[use]


def _elsewhere(node: cst.CSTNode) -> str:
    """Return why a use of Dify outside a request is undecided; empty if it is none."""
    if isinstance(node, cst.Import | cst.ImportFrom):
        names = [node.module] if isinstance(node, cst.ImportFrom) else [alias.name for alias in node.names]
        found = {
            (get_full_name_for_node(name) or "").split(".")[0] for name in names if name
        } & _OTHER_PACKAGES
        return f"the package {min(found)} is not rewritten; use the `openai` package" if found else ""
    literal = node.value if isinstance(node, cst.FormattedStringText) else text(node) or ""
    if literal.endswith(ROUTE):
        return "the route is kept apart from the call that uses it; write it into the call"
    return ""


def _is_request(call: cst.Call) -> bool:
    return isinstance(call.func, cst.Attribute) and call.func.attr.value in _REQUESTS
