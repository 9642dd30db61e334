"""Rewriting a module. A call is rewritten with everything that reads its answer, or not at all."""

from collections.abc import Callable
from typing import cast

import libcst as cst
from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider

from dify_kit.migration.finding import Parents, imports
from dify_kit.migration.leftovers import dead_reads
from dify_kit.migration.plan import Apply, Context
from dify_kit.migration.planning import Plan
from dify_kit.migration.report import Result, Target, Undecided

_BOM = b"\xef\xbb\xbf"


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
        plan, undecided, module = _plan(original, target, shared)
        if not plan.migrated:
            return Result(source, 0, undecided)
        result = module.visit(Apply(plan.edits))
        if not imports(result, "os"):
            result = _import_os(result)
        code = result.bytes
        # Not every string of nodes is a program: what Python refuses stays as it was.
        compile(code, "migrated", "exec", dont_inherit=True)
        leftovers = dead_reads(original.bytes, code, shared)
    except (SyntaxError, ValueError, RecursionError) as error:
        return Result(source, 0, (Undecided(1, f"could not be rewritten safely: {type(error).__name__}"),))
    return Result(bom + code, plan.migrated, undecided, leftovers)


def _plan(
    original: cst.Module, target: Target, shared: Callable[[str], bool]
) -> tuple[Plan, tuple[Undecided, ...], cst.Module]:
    wrapper = MetadataWrapper(original)
    module = wrapper.module
    parents = cast("Parents", wrapper.resolve(ParentNodeProvider))
    plan = Plan(Context(module, parents, target, shared))
    positions = wrapper.resolve(PositionProvider)
    undecided = sorted((positions[node].start.line, reason) for node, reason in plan.problems)
    return plan, tuple(Undecided(*one) for one in undecided), module


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
