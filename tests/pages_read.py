"""Which pages of the documentation a test reads: those that its code names, followed through what it uses.

A test uses fixtures, helpers and constants of its own module and of others in `tests/` and `support/`. The pages are
the strings in all of them that end in `.md`.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from dify_kit.workspace.files import CHECKOUT

# A pattern for all pages.
EVERY = "*.md"
_FOLLOWED = ("tests.", "support.")


@cache
def pages_read(test: str) -> frozenset[str]:
    """Return the names of the pages (`deploy.md`; `*.md` for all) that a test, `tests/unit/x.py::test_y`, reads."""
    file, _, name = test.partition("::")
    seen: set[tuple[Path, str]] = set()
    return frozenset(_named(CHECKOUT / file, name, seen))


def _named(file: Path, name: str, seen: set[tuple[Path, str]]) -> Iterator[str]:
    if (file, name) in seen:
        return
    seen.add((file, name))
    if (imported := _imports(file).get(name)) is not None:
        yield from _named(*imported, seen)
        return
    for definition in _definitions(file).get(name, ()):
        for node in ast.walk(definition):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith(".md"):
                yield node.value.rpartition("/")[2]
            elif isinstance(node, ast.Name):
                yield from _named(file, node.id, seen)
            elif isinstance(node, ast.arg):
                # A fixture.
                yield from _named(file, node.arg, seen)
            elif (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                # A function of a module that is imported as a whole.
                and (module := _modules(file).get(node.value.id))
            ):
                yield from _named(module, node.attr, seen)


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def _definitions(file: Path) -> dict[str, list[ast.stmt]]:
    """Return what defines each name of a module: functions, classes (whole), and assignments."""
    found: dict[str, list[ast.stmt]] = {}
    for node in _tree(file).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.setdefault(node.name, []).append(node)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for one in ast.walk(target):
                    if isinstance(one, ast.Name):
                        found.setdefault(one.id, []).append(node)
    return found


@cache
def _imports(file: Path) -> dict[str, tuple[Path, str]]:
    """Return name -> (module, name there) of what a module imports from the tests' own modules."""
    found: dict[str, tuple[Path, str]] = {}
    for node in _tree(file).body:
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(_FOLLOWED):
            source = _file_of(str(node.module))
            for alias in node.names:
                if source is not None:
                    found[alias.asname or alias.name] = (source, alias.name)
    return found


@cache
def _modules(file: Path) -> dict[str, Path]:
    """Return name -> file of the tests' own modules that a module imports as a whole."""
    found: dict[str, Path] = {}
    for node in _tree(file).body:
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(_FOLLOWED):
            for alias in node.names:
                if module := _file_of(f"{node.module}.{alias.name}"):
                    found[alias.asname or alias.name] = module
    return found


def _file_of(module: str) -> Path | None:
    path = CHECKOUT.joinpath(*module.split(".")).with_suffix(".py")
    return path if path.is_file() else None
