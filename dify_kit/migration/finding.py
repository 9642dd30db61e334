"""Reading a module's tree: names, literals, imports, and what HTTP client an expression is."""

from collections.abc import Iterator, Mapping

import libcst as cst
from libcst.helpers import get_full_name_for_node

Parents = Mapping[cst.CSTNode, cst.CSTNode]
_CLIENTS = ("requests.Session", "requests.session", "httpx.Client", "httpx.AsyncClient")


def walk(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """Yield a node and everything below it."""
    yield node
    for child in node.children:
        yield from walk(child)


def text(node: cst.CSTNode) -> str | None:
    """Return the value of a plain string literal; None for anything else."""
    if isinstance(node, cst.SimpleString):
        value = node.evaluated_value
        return value if isinstance(value, str) else None
    return None


def ending(node: cst.CSTNode) -> str:
    """Return the literal text that a string expression ends with; empty when it is not known."""
    if isinstance(node, cst.FormattedString) and node.parts:
        last = node.parts[-1]
        return last.value if isinstance(last, cst.FormattedStringText) else ""
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Add):
        return ending(node.right)
    return text(node) or ""


def scope(node: cst.CSTNode, parents: Parents) -> cst.CSTNode:
    """Return the function, lambda, class or module that a node lies in."""
    while not isinstance(node, cst.Module):
        node = parents[node]
        if isinstance(node, cst.FunctionDef | cst.Lambda | cst.ClassDef):
            break
    return node


def assigned(name: str, within: cst.CSTNode, parents: Parents) -> cst.Assign | None:
    """Return a name's assignment if it is the only binding of the name within a scope."""
    bindings = [n for n in walk(within) if isinstance(n, cst.Name) and n.value == name and _binds(n, parents)]
    if len(bindings) != 1:
        return None
    target = parents[bindings[0]]
    statement = parents.get(target)
    if not isinstance(target, cst.AssignTarget) or not isinstance(statement, cst.Assign):
        return None
    return statement if len(statement.targets) == 1 and scope(statement, parents) is within else None


def uses(name: str, within: cst.CSTNode, parents: Parents) -> list[cst.Name]:
    """Return where a name is read within a scope; attributes and keywords of the same name do not count."""
    found = []
    for node in walk(within):
        if not isinstance(node, cst.Name) or node.value != name or _binds(node, parents):
            continue
        parent = parents[node]
        if isinstance(parent, cst.Attribute) and parent.attr is node:
            continue
        if isinstance(parent, cst.Arg) and parent.keyword is node:
            continue
        found.append(node)
    return found


def _binds(node: cst.Name, parents: Parents) -> bool:
    parent = parents[node]
    match parent:
        case cst.AssignTarget() | cst.AugAssign() | cst.AnnAssign() | cst.NamedExpr() | cst.For():
            return parent.target is node
        case cst.Param() | cst.FunctionDef() | cst.ClassDef():
            return parent.name is node
        case cst.CompFor():
            return parent.target is node
        case cst.AsName() | cst.NameItem() | cst.ImportAlias() | cst.Del():
            return True
        case cst.Element():
            # Part of a tuple or list: a target when that one is.
            outer = parents[parent]
            return isinstance(parents[outer], cst.AssignTarget | cst.For | cst.CompFor)
    return False


def imports(module: cst.Module, name: str) -> bool:
    """Tell whether the module has ``import name`` at its top level."""
    return any(
        isinstance(small, cst.Import)
        and any(get_full_name_for_node(a.name) == name and a.asname is None for a in small.names)
        for line in module.body
        if isinstance(line, cst.SimpleStatementLine)
        for small in line.body
    )


def client(receiver: cst.BaseExpression, module: cst.Module, parents: Parents) -> str | None:
    """Return ``module`` for requests or httpx itself, ``session`` for a client made of one, None if unknown."""
    name = get_full_name_for_node(receiver)
    if name in {"requests", "httpx"} and imports(module, name):
        bound = [
            n for n in walk(module) if isinstance(n, cst.Name) and n.value == name and _binds(n, parents)
        ]
        return "module" if len(bound) == 1 else None
    if name is None or not isinstance(receiver, cst.Name | cst.Attribute):
        return None
    made = []
    for node in walk(module):
        if isinstance(node, cst.Assign) and any(
            get_full_name_for_node(t.target) == name for t in node.targets
        ):
            made.append(node.value)
        elif (
            isinstance(node, cst.WithItem)
            and node.asname
            and get_full_name_for_node(node.asname.name) == name
        ):
            made.append(node.item)
        elif isinstance(node, cst.Param) and node.name.value == name:
            return None
    known = [isinstance(m, cst.Call) and get_full_name_for_node(m.func) in _CLIENTS for m in made]
    return "session" if known and all(known) else None
