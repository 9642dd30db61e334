"""The headers of a call: the dictionary that has its key, wherever it is written."""

from dataclasses import dataclass

import libcst as cst

from dify_kit.migration.finding import assigned, home, makers, text, walk
from dify_kit.migration.plan import Context, UndecidedError

_ENVIRONMENT = ("os.getenv", "os.environ.get")


@dataclass(frozen=True)
class Headers:
    """The value of `Authorization`, whether the call itself has it, and else all that reads its dictionary."""

    authorization: cst.BaseExpression
    in_place: bool
    uses: tuple[cst.CSTNode, ...] = ()


def headers_of(value: cst.BaseExpression, context: Context) -> Headers:
    """Return the headers that an expression gives a call. Raises UndecidedError."""
    literal, uses = _dictionary(value, context)
    elements = [one for one in literal.elements if isinstance(one, cst.DictElement)]
    keys = [one for one in elements if text(one.key) == "Authorization"]
    if len(keys) != 1 or len(elements) != len(literal.elements):
        raise UndecidedError("its headers do not have one plain Authorization")
    return Headers(keys[0].value, literal is value, uses)


def _dictionary(value: cst.BaseExpression, context: Context) -> tuple[cst.Dict, tuple[cst.CSTNode, ...]]:
    """Return the dictionary, and all that reads it where that is certain."""
    match value:
        case cst.Dict():
            return value, (value,)
        case cst.Name():
            within = home(value, value.value, context.parents)
            made = assigned(value.value, within, context.parents)
            if made and isinstance(made.value, cst.Dict):
                known = () if context.shared(value.value) else tuple(context.uses(value.value, within))
                return made.value, known
            if made and isinstance(made.value, cst.Call):
                return _returned(made.value, context), ()
        case cst.Attribute():
            made_of = makers(value, context.module, context.parents)
            if made_of and len(made_of) == 1 and isinstance(made_of[0], cst.Dict):
                reads = () if context.shares_owner(value) else tuple(context.reads(value.attr.value))
                return made_of[0], reads
        case cst.Call():
            calls = tuple(context.parents[one] for one in context.mentions(value.func))
            return _returned(value, context), calls if _own(value.func, context) else ()
    raise UndecidedError("its headers are not a dictionary written in this file")


def _own(called: cst.BaseExpression, context: Context) -> bool:
    """Tell whether no other file can call a function."""
    name = called.attr.value if isinstance(called, cst.Attribute) else context.code(called)
    return not context.shared(name)


def _returned(call: cst.Call, context: Context) -> cst.Dict:
    """Return the dictionary that a function does nothing but return. Raises UndecidedError."""
    function = context.function(call.func)
    if function is None or function.decorators or function.asynchronous:
        raise UndecidedError("its headers are not a dictionary written in this file")
    lines = [one for one in function.body.body if not _is_docstring(one)]
    line = lines[0].body[0] if len(lines) == 1 and isinstance(lines[0], cst.SimpleStatementLine) else None
    literal = line.value if isinstance(line, cst.Return) else None
    if not isinstance(literal, cst.Dict):
        raise UndecidedError("the function of its headers does more than return a dictionary")
    for inner in walk(literal):
        if isinstance(inner, cst.Call) and context.code(inner.func) not in _ENVIRONMENT:
            raise UndecidedError(f"the function of its headers calls `{context.code(inner.func)}`")
    return literal


def _is_docstring(line: cst.CSTNode) -> bool:
    first = line.body[0] if isinstance(line, cst.SimpleStatementLine) else None
    return isinstance(first, cst.Expr) and isinstance(first.value, cst.SimpleString)
