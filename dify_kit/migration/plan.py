"""What a planned rewriting consists of: edits by node, the module they belong to, and the reason to make none."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import libcst as cst

from dify_kit.migration.finding import Parents, scope, uses, walk
from dify_kit.migration.report import Target

Edit = Callable[[cst.CSTNode], "cst.CSTNode | cst.FlattenSentinel[cst.CSTNode] | cst.RemovalSentinel"]
Edits = dict[cst.CSTNode, Edit]


class UndecidedError(Exception):
    """This call cannot be moved safely."""


@dataclass(frozen=True)
class Context:
    """A module, the parent of each of its nodes, and where its clients go.

    `shared` tells whether another file knows a name of this module, which then must keep its meaning.
    """

    module: cst.Module
    parents: Parents
    target: Target
    shared: Callable[[str], bool]

    @cached_property
    def order(self) -> dict[cst.CSTNode, int]:
        """The place of each node in the source."""
        return {node: place for place, node in enumerate(walk(self.module))}

    def code(self, node: cst.CSTNode) -> str:
        """Return a node's source."""
        return self.module.code_for_node(node)

    def scope(self, node: cst.CSTNode) -> cst.CSTNode:
        """Return the function, lambda, class or module that contains a node."""
        return scope(node, self.parents)

    def uses(self, name: str, within: cst.CSTNode) -> list[cst.Name]:
        """Return where a name of a scope is read."""
        return uses(name, within, self.parents)

    def function(self, called: cst.BaseExpression) -> cst.FunctionDef | None:
        """Return the only function of the module that a call by this name, or by this method of `self`, can reach."""
        match called:
            case cst.Attribute(value=cst.Name("self"), attr=cst.Name(name)):
                method = True
            case cst.Name(name):
                method = False
            case _:
                return None
        found = [
            one for one in walk(self.module) if isinstance(one, cst.FunctionDef) and one.name.value == name
        ]
        if len(found) != 1 or isinstance(self.scope(found[0]), cst.ClassDef) != method:
            return None
        return found[0]

    def mentions(self, called: cst.BaseExpression) -> list[cst.CSTNode]:
        """Return where the function of this name, or of this attribute, is read in the module."""
        if isinstance(called, cst.Attribute):
            return self.reads(called.attr.value)
        return list(self.uses(self.code(called), self.module))

    def shares_owner(self, node: cst.CSTNode) -> bool:
        """Tell whether another file has the class that a node is in, and can read the attributes of its objects."""
        while not isinstance(node, cst.ClassDef | cst.Module):
            node = self.parents[node]
        return isinstance(node, cst.ClassDef) and self.shared(node.name.value)

    def reads(self, name: str) -> list[cst.CSTNode]:
        """Return where an attribute of this name is read, of any object."""
        return [
            one
            for one in walk(self.module)
            if isinstance(one, cst.Attribute)
            and one.attr.value == name
            and not isinstance(self.parents[one], cst.AssignTarget | cst.AnnAssign | cst.AugAssign)
        ]

    def line(self, node: cst.CSTNode) -> cst.CSTNode:
        """Return the statement that a node is part of: a line, or the head of a compound statement."""
        while not isinstance(node, cst.BaseStatement | cst.BaseSmallStatement):
            node = self.parents[node]
        above = self.parents[node]
        return above if isinstance(node, cst.BaseSmallStatement) else node

    @property
    def key(self) -> str:
        """The expression that reads the new key."""
        return f'os.environ["{self.target.key_variable}"]'


class Apply(cst.CSTTransformer):
    """Makes the edits of a tree."""

    def __init__(self, edits: Edits) -> None:
        super().__init__()
        self.edits = edits

    def on_leave(  # type: ignore[override]  # an edit returns what fits its place
        self, original_node: cst.CSTNode, updated_node: cst.CSTNode
    ) -> cst.CSTNode | cst.FlattenSentinel[cst.CSTNode] | cst.RemovalSentinel:
        """Replace a planned node, its children being done."""
        edit = self.edits.get(original_node)
        return edit(updated_node) if edit else updated_node


def put(pattern: str, **values: cst.BaseExpression) -> cst.BaseExpression:
    """Return an expression in which names are replaced by other expressions."""
    replaced = cst.parse_expression(pattern).visit(_Put(values))
    assert isinstance(replaced, cst.BaseExpression)  # noqa: S101  # an expression stays one
    return replaced


class _Put(cst.CSTTransformer):
    def __init__(self, values: dict[str, cst.BaseExpression]) -> None:
        super().__init__()
        self.values = values

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.BaseExpression:  # noqa: N802
        return self.values.get(original_node.value, updated_node)


def remove(line: cst.CSTNode, context: Context) -> Edit:
    """Return the edit that removes a statement, or leaves `pass` where a block would have nothing else."""
    block = context.parents[line]
    if isinstance(block, cst.IndentedBlock | cst.Module) and len(block.body) > 1:
        return lambda _: cst.RemoveFromParent()
    return lambda new: (
        new.with_changes(body=[cst.Pass()])
        if isinstance(new, cst.SimpleStatementLine)
        else cst.RemoveFromParent()
    )
