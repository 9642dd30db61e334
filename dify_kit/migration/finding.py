"""Reading a module's tree: names, literals, imports, and what HTTP client an expression is."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import libcst as cst
from libcst.helpers import get_full_name_for_node

Parents = Mapping[cst.CSTNode, cst.CSTNode]
_CLIENTS = {
    "requests.Session": "requests",
    "requests.session": "requests",
    "httpx.Client": "httpx",
    "httpx.AsyncClient": "httpx",
    "aiohttp.ClientSession": "aiohttp",
}


def walk(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """Yield a node and everything below it."""
    yield node
    for child in _children(node):
        yield from walk(child)


@lru_cache(maxsize=1 << 16)
def _children(node: cst.CSTNode) -> tuple[cst.CSTNode, ...]:
    """Return a node's children; libcst makes a visitor to find them, and nodes never change."""
    return tuple(node.children)


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
    """Return the function, lambda, class or module that contains a node."""
    while not isinstance(node, cst.Module):
        node = parents[node]
        if isinstance(node, cst.FunctionDef | cst.Lambda | cst.ClassDef):
            break
    return node


def assigned(name: str, within: cst.CSTNode, parents: Parents) -> cst.Assign | cst.AnnAssign | None:
    """Return a name's assignment if it is the only binding of the name within a scope."""
    found = bindings(name, within, parents)
    if len(found) != 1:
        return None
    target = parents[found[0]]
    statement = parents.get(target) if isinstance(target, cst.AssignTarget) else target
    if isinstance(statement, cst.Assign):
        alone = len(statement.targets) == 1
    else:
        alone = isinstance(statement, cst.AnnAssign) and statement.value is not None
    if not alone or not isinstance(statement, cst.Assign | cst.AnnAssign):
        return None
    return statement if scope(statement, parents) is within else None


def uses(name: str, within: cst.CSTNode, parents: Parents) -> list[cst.Name]:
    """Return where a name is read within a scope; attributes and keywords of the same name do not count."""
    found = []
    for node in named(name, within, parents):
        if binds(node, parents):
            continue
        parent = parents[node]
        if isinstance(parent, cst.Attribute) and parent.attr is node:
            continue
        if isinstance(parent, cst.Arg) and parent.keyword is node:
            continue
        found.append(node)
    return found


def binds(node: cst.Name, parents: Parents) -> bool:
    """Tell whether a name is given a value here."""
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


@lru_cache(maxsize=4)
def origins(module: cst.Module) -> dict[str, str]:
    """Return what a module's imports bind, those in functions too: name -> dotted origin, empty for one bound twice."""
    return _imported(walk(module))


def _imported(nodes: Iterable[cst.CSTNode]) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in nodes:
        if not isinstance(node, cst.Import | cst.ImportFrom) or isinstance(node.names, cst.ImportStar):
            continue
        package = ""
        if isinstance(node, cst.ImportFrom):
            if node.relative or node.module is None:
                continue
            package = f"{get_full_name_for_node(node.module)}."
        for alias in node.names:
            full = str(get_full_name_for_node(alias.name))
            name = str(get_full_name_for_node(alias.asname.name)) if alias.asname else full
            if not package and not alias.asname:
                name = full = full.split(".", maxsplit=1)[0]
            found[name] = "" if found.get(name, package + full) != package + full else package + full
    return found


def origin(node: cst.CSTNode, module: cst.Module, parents: Parents) -> str:
    """Return where an imported name, or an attribute of one, comes from (`requests.Session`), or nothing.

    Bindings in other functions do not count: those are other names.
    """
    name = get_full_name_for_node(node)
    if name is None or not isinstance(node, cst.Name | cst.Attribute):
        return ""
    first, _, rest = name.partition(".")
    if first not in origins(module):
        return ""
    visible = list(_visible(first, home(node, first, parents), parents))
    found = _imported(visible).get(first, "")
    bound = [n for n in visible if isinstance(n, cst.Name) and n.value == first and binds(n, parents)]
    imported = all(
        isinstance(parents[n], cst.ImportAlias) or isinstance(parents[parents[n]], cst.ImportAlias)
        for n in bound
    )
    return f"{found}.{rest}".rstrip(".") if found and imported else ""


def bindings(name: str, within: cst.CSTNode, parents: Parents) -> list[cst.Name]:
    """Return every place in a scope that binds a name."""
    return [node for node in named(name, within, parents) if binds(node, parents)]


def named(name: str, within: cst.CSTNode, parents: Parents) -> Iterator[cst.Name]:
    """Yield the uses of a name in a scope, without inner functions that define the same name."""
    if isinstance(within, cst.Name) and within.value == name:
        yield within
    for child in _children(within):
        if isinstance(child, cst.FunctionDef | cst.Lambda) and _is_local(name, child, parents):
            outside = _defaults(child)
            if isinstance(child, cst.FunctionDef):
                outside += [child.name, *child.decorators]
            for node in outside:
                yield from named(name, node, parents)
        else:
            yield from named(name, child, parents)


def _defaults(function: cst.FunctionDef | cst.Lambda) -> list[cst.CSTNode]:
    """Return what is evaluated outside of a function: its defaults."""
    params = [node for node in walk(function.params) if isinstance(node, cst.Param)]
    return [param.default for param in params if param.default is not None]


def _is_local(name: str, function: cst.FunctionDef | cst.Lambda, parents: Parents) -> bool:
    inside = [*named(name, function.params, parents), *named(name, function.body, parents)]
    declared = any(isinstance(parents[node], cst.NameItem) for node in inside)
    return not declared and any(binds(node, parents) for node in inside)


@dataclass(frozen=True)
class Client:
    """An HTTP client: its library, and whether it is the library's module itself or an object with settings."""

    library: str
    is_module: bool


def client(receiver: cst.BaseExpression, module: cst.Module, parents: Parents) -> Client | None:
    """Return which HTTP client an expression is; None if that is not known."""
    if (library := origin(receiver, module, parents)) in {"requests", "httpx"}:
        return Client(library, is_module=True)
    if isinstance(receiver, cst.Call):
        made: list[cst.BaseExpression] = [receiver]
    else:
        found = makers(receiver, module, parents)
        if found is None:
            return None
        made = found
    kinds = {_CLIENTS.get(origin(_class_of(one), module, parents), "") for one in made}
    if len(kinds) != 1 or not (library := kinds.pop()):
        return None
    if library == "aiohttp" and any("base_url" in module.code_for_node(one) for one in made):
        return None  # its whole addresses would be refused
    return Client(library, is_module=False)


def makers(
    receiver: cst.BaseExpression, module: cst.Module, parents: Parents
) -> list[cst.BaseExpression] | None:
    """Return what is assigned to a name or an attribute, and annotations of parameters of that name.

    Assignments to an attribute count anywhere in the module; those to a name only where they bind the receiver's.
    None where it may be something else too: a parameter without a type, a target of a loop.
    """
    name = get_full_name_for_node(receiver)
    if name is None or not isinstance(receiver, cst.Name | cst.Attribute):
        return None
    made: list[cst.BaseExpression] = []
    for node in _candidates(receiver, name, module, parents):
        match node:
            case cst.Assign():
                if any(get_full_name_for_node(t.target) == name for t in node.targets):
                    made.append(node.value)
            case cst.AnnAssign() if get_full_name_for_node(node.target) == name:
                made.append(node.value or node.annotation.annotation)
            case cst.WithItem() if node.asname and get_full_name_for_node(node.asname.name) == name:
                made.append(node.item)
            case cst.Param() if node.name.value == name:
                if node.annotation is None:
                    return None
                made.append(node.annotation.annotation)
            case cst.For() | cst.CompFor() | cst.NamedExpr() if get_full_name_for_node(node.target) == name:
                return None
    return made


def _candidates(
    receiver: cst.CSTNode, name: str, module: cst.Module, parents: Parents
) -> Iterator[cst.CSTNode]:
    """Return the nodes that can bind the receiver: of a name, only those of its own scope."""
    if not isinstance(receiver, cst.Name):
        return walk(module)
    return _visible(name, home(receiver, name, parents), parents)


def home(use: cst.CSTNode, name: str, parents: Parents) -> cst.CSTNode:
    """Return the function, lambda or module whose name a use refers to."""
    within = scope(use, parents)
    while not isinstance(within, cst.Module):
        if isinstance(within, cst.FunctionDef | cst.Lambda) and _is_local(name, within, parents):
            break
        within = scope(within, parents)
    return within


def _visible(name: str, within: cst.CSTNode, parents: Parents) -> Iterator[cst.CSTNode]:
    """Yield the nodes of a scope without inner functions that bind the name for themselves."""
    yield within
    for child in _children(within):
        if isinstance(child, cst.FunctionDef | cst.Lambda) and _is_local(name, child, parents):
            if isinstance(child, cst.FunctionDef):
                # The name of the function is bound outside of it.
                yield child.name
        else:
            yield from _visible(name, child, parents)


def _class_of(made: cst.BaseExpression) -> cst.BaseExpression:
    return made.func if isinstance(made, cst.Call) else made
