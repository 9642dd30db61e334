"""The directory of the operator's own templates: `dify:templatesDir`. Every file in it has to have an effect."""

import fnmatch
import re
from collections.abc import Mapping
from pathlib import Path

from infra import hints
from infra.catalogue import route_groups
from infra.jinja import SCRIPT_SUFFIX, SUFFIX, TEMPLATES
from infra.settings.reader import Section

_NGINX = "nginx/"
# What our templates include for the operator, in addition to a folder for each route group.
SNIPPETS = ("http", "server")
_INCLUDE = re.compile(r"\binclude\s+(?P<glob>[^;\s{}]*(?:\{\{[^}]*\}\}[^;\s{}]*)*);")
_EXPRESSION = re.compile(r"\{\{[^}]*\}\}")


def read_templates_dir(top: Section) -> Path | None:
    """Read `dify:templatesDir`; None without one. Files that nothing includes are reported."""
    given = top.text("templatesDir")
    if not given:
        return None
    path = Path(given).expanduser()
    if not path.is_absolute() or not path.is_dir():
        top.problems.add("templatesDir", given, "is not a directory", "use the absolute path of a directory")
        return path
    for name, why in unused(path).items():
        top.problems.add("templatesDir", name, why, hints.nearest(name, places(name)))
    return path


def places(name: str) -> list[str]:
    """Return where a file of this name could be: our templates, and the folders of snippets."""
    file = Path(name).name
    snippet = file if file.endswith(f".conf{SUFFIX}") else f"{file.partition('.')[0]}.conf{SUFFIX}"
    folders = (*SNIPPETS, *route_groups.groups())
    return [*_files(TEMPLATES), *(f"{_NGINX}snippets/{folder}/{snippet}" for folder in folders)]


def unused(directory: Path) -> dict[str, str]:
    """Return the operator's files that have no effect, by their path below the directory, with the reason."""
    own, ours = _files(directory), _files(TEMPLATES)
    sources = {**ours, **own}
    found = {}
    for name in sorted(own.keys() - ours.keys()):
        if not name.endswith((SUFFIX, SCRIPT_SUFFIX)):
            if "/" in name:
                found[name] = f"is no template: the name of one ends with {SUFFIX}"
        elif not _included(name, sources):
            found[name] = "replaces no template of ours, and nothing includes it"
    return found


def _files(directory: Path) -> dict[str, Path]:
    """Return the files of a directory by their path below it, without hidden ones and copies of editors."""
    return {
        str(path.relative_to(directory)): path
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        and not path.name.endswith("~")
        and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    }


def _included(name: str, sources: Mapping[str, Path]) -> bool:
    """Whether another template includes a file: as Jinja does, as nginx does, or as a script is imported."""
    result = name.removeprefix(_NGINX).removesuffix(SUFFIX)
    imported = Path(name).name if name.endswith(SCRIPT_SUFFIX) else ""
    for other, path in sources.items():
        if other == name or not other.endswith((SUFFIX, SCRIPT_SUFFIX)):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if f'"{name}"' in text or f"'{name}'" in text or (imported and imported in text):
            return True
        if not name.startswith(_NGINX):
            continue
        # `js_preload_object` and paths in scripts name the whole path.
        if "/" in result and re.search(rf"(?<![\w./-]){re.escape(result)}\b", text):
            return True
        if any(_matches(result, found["glob"]) for found in _INCLUDE.finditer(text)):
            return True
    return False


def _matches(result: str, glob: str) -> bool:
    """Whether nginx's include takes a file; an expression of Jinja in it stands for a route group, or anything."""
    names = route_groups.groups() if glob.startswith("snippets/") else ("*",)
    globs = {_EXPRESSION.sub(one, glob) for one in names}
    # A `*` of nginx does not cross folders.
    return any(fnmatch.fnmatchcase(result, one) and result.count("/") == one.count("/") for one in globs)
