"""Where a request goes: the text at the end of its URL, also where names hold parts of it."""

from dataclasses import dataclass

import libcst as cst

from dify_kit.migration.finding import assigned, ending, home, origin, text, walk
from dify_kit.migration.plan import Context, Edits, remove

ROUTE = "chat-messages"
# A constant may be made of constants, and these of others.
_DEPTH = 4


@dataclass(frozen=True)
class Address:
    """The literal text that a URL ends with, and the constants that hold it, the nearest first."""

    ending: str
    constants: tuple["Constant", ...] = ()

    @property
    def is_chat(self) -> bool:
        """Tell whether it is Dify's route of chat messages."""
        return self.ending.endswith(ROUTE)


@dataclass(frozen=True)
class Constant:
    """A name or an attribute that holds a part of a URL, and the only statement that gives it a value."""

    name: str
    made: cst.Assign | cst.AnnAssign
    uses: tuple[cst.CSTNode, ...]


def address(node: cst.BaseExpression, context: Context, depth: int = _DEPTH) -> Address:
    """Return where a URL ends. Its ending is empty where that is not known."""
    match node:
        case cst.Name() | cst.Attribute() if depth:
            found = _constant(node, context)
            if found is None or found.made.value is None:
                return Address("")
            inner = address(found.made.value, context, depth - 1)
            return Address(inner.ending, (found, *inner.constants))
        case cst.FormattedString() if node.parts and isinstance(
            last := node.parts[-1], cst.FormattedStringExpression
        ):
            return address(last.expression, context, depth)
        case cst.BinaryOperation(operator=cst.Add()):
            return address(node.right, context, depth)
        case cst.Call(args=[_, cst.Arg(value=route)]) if _is_urljoin(node, context):
            return address(route, context, depth)
    return Address(ending(node))


def repoint(moved: dict[cst.CSTNode, Address], context: Context, literal: cst.BaseExpression) -> Edits:
    """Return the edits of constants that moved calls alone read; ``moved`` has the URLs of these calls.

    A constant that is a whole URL gets the new one, and the calls keep its name. One that is a part of it is removed.
    """
    edits: Edits = {}
    inside = {inner for url in moved for inner in walk(url)}
    for constant in _unique(moved):
        if (
            context.shared(constant.name)
            or _read_elsewhere(constant, context)
            or not set(constant.uses) <= inside | set(_values(edits))
        ):
            continue
        if set(constant.uses) <= moved.keys() and constant.made.value is not None:
            edits[constant.made.value] = lambda _: literal
            edits |= {use: lambda new: new for use in constant.uses}
        else:
            line = context.line(constant.made)
            edits[line] = remove(line, context)
    return edits


def _read_elsewhere(constant: Constant, context: Context) -> bool:
    """Tell whether another file can read an attribute: it has the class."""
    is_attribute = any(isinstance(one, cst.Attribute) for one in constant.uses)
    return is_attribute and context.shares_owner(constant.made)


def _values(edits: Edits) -> list[cst.CSTNode]:
    """Return what is replaced or removed, with everything below it: names that are read there are read no more."""
    return [inner for node in edits for inner in walk(node)]


def _unique(moved: dict[cst.CSTNode, Address]) -> list[Constant]:
    """Return the constants that hold the route itself, each once, those that are read by others last."""
    every = {constant.made: constant for one in moved.values() for constant in one.constants}
    return list(every.values())


def _constant(node: cst.Name | cst.Attribute, context: Context) -> Constant | None:
    parents = context.parents
    if isinstance(node, cst.Name):
        within = home(node, node.value, parents)
        made = assigned(node.value, within, parents)
        if made is None:
            return None
        return Constant(node.value, made, tuple(context.uses(node.value, within)))
    if not (isinstance(node.value, cst.Name) and node.value.value == "self"):
        return None
    name = node.attr.value
    makes = [
        statement
        for statement in walk(context.module)
        if isinstance(statement, cst.Assign | cst.AnnAssign) and name in _attributes(statement)
    ]
    return Constant(name, makes[0], tuple(context.reads(name))) if len(makes) == 1 else None


def _attributes(statement: cst.Assign | cst.AnnAssign) -> set[str]:
    targets = (
        [one.target for one in statement.targets] if isinstance(statement, cst.Assign) else [statement.target]
    )
    return {one.attr.value for one in targets if isinstance(one, cst.Attribute)}


def _is_urljoin(call: cst.Call, context: Context) -> bool:
    return origin(call.func, context.module, context.parents) == "urllib.parse.urljoin" and bool(
        text(call.args[1].value) or isinstance(call.args[1].value, cst.Name | cst.Attribute)
    )
