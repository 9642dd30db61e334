"""Variables of the environment that are read after a migration although nothing uses their values any more.

Such a line fails where the variable is not set, as a program does that no longer has an account with Dify.
"""

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dify_kit.migration.report import Undecided


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """A name, or an attribute (`.name`), that is given a value, what the value reads, and its line."""

    name: str
    label: str
    reads: Counter[str]
    variables: tuple[str, ...]
    line: int


def dead_reads(before: bytes, after: bytes, shared: Callable[[str], bool]) -> tuple[Undecided, ...]:
    """Return the reads of the environment that a migration left without a use, by their lines before it."""
    if b"environ" not in before and b"getenv" not in before:
        return ()
    was, now = _Module(before), _Module(after)
    used, unused = was.unused(), now.unused()
    left = {one.name for one in now.kept if one.name in unused and one.variables}
    return tuple(
        Undecided(
            one.line,
            f"`{one.label}` reads {', '.join(one.variables)} from the environment, and nothing uses it any more; "
            "remove it",
        )
        for one in was.kept
        if one.name in left and one.name not in used and one.variables and not shared(one.name.lstrip("."))
    )


class _Module:
    """What a module keeps, and how often each name is read."""

    def __init__(self, source: bytes) -> None:
        self.tree = ast.parse(source)
        self.reads = _reads(self.tree)
        self.kept = sorted(self._kept(), key=lambda one: one.line)

    def unused(self) -> set[str]:
        """Return the names that nothing reads, or nothing but the values of such names."""
        left, found = self.reads.copy(), set[str]()
        while True:
            more = {one.name for one in self.kept if left[one.name] <= 0} - found
            if not more:
                return found
            found |= more
            for one in self.kept:
                if one.name in more:
                    left.subtract(one.reads)

    def _kept(self) -> Iterator[_Kept]:
        classes = {node.name: node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef)}
        for node in ast.walk(self.tree):
            match node:
                case (
                    ast.Assign(targets=[target], value=value)
                    | ast.AnnAssign(target=target, value=ast.expr() as value)
                ):
                    if name := _name(target):
                        yield _kept_value(name, name.lstrip("."), value, node.lineno)
                case ast.Call(func=ast.Name(id=name)) if name in classes:
                    for parameter, value in _constructed(node, classes[name]):
                        yield _kept_value(parameter, f"{name}({parameter}=...)", value, value.lineno)


def _kept_value(name: str, label: str, value: ast.expr, line: int) -> _Kept:
    return _Kept(name=name, label=label, reads=_reads(value), variables=tuple(_variables(value)), line=line)


def _reads(within: ast.AST) -> Counter[str]:
    """Count the reads of each name, and of each attribute."""
    found: Counter[str] = Counter()
    for node in ast.walk(within):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                found[name] += 1
            case ast.Attribute(attr=name, ctx=ast.Load()):
                found[f".{name}"] += 1
    return found


def _name(target: ast.expr) -> str:
    match target:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id="self"), attr=name):
            return f".{name}"
    return ""


def _constructed(call: ast.Call, made: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    """Yield the parameters of a class that a call gives an argument, with the argument."""
    methods = [one for one in made.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
    if not methods:
        return
    names = [one.arg for one in (*methods[0].args.posonlyargs, *methods[0].args.args)[1:]]
    if not any(isinstance(one, ast.Starred) for one in call.args):
        yield from zip(names, call.args, strict=False)
    for one in call.keywords:
        if one.arg is not None:
            yield one.arg, one.value


def _variables(value: ast.expr) -> Iterator[str]:
    """Yield the variables of the environment that an expression reads."""
    for node in ast.walk(value):
        match node:
            case (
                ast.Subscript(
                    value=ast.Attribute(value=ast.Name(id="os"), attr="environ"),
                    slice=ast.Constant(value=str(name)),
                )
                | ast.Call(
                    func=ast.Attribute(value=ast.Name(id="os"), attr="getenv"),
                    args=[ast.Constant(value=str(name)), *_],
                )
                | ast.Call(
                    func=ast.Attribute(
                        value=ast.Attribute(value=ast.Name(id="os"), attr="environ"), attr="get"
                    ),
                    args=[ast.Constant(value=str(name)), *_],
                )
            ):
                yield name
