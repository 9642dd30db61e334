"""The command that moves Python clients from Dify's service API to an OpenAI-compatible one."""

import difflib
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from dify_kit.app import app
from dify_kit.errors import KitError, UsageError
from dify_kit.migration.report import Result, Target
from dify_kit.talk import say, warn

_PRESETS = {"holysheep": "https://api.holysheep.ai/v1", "proxy": "http://localhost:8080/llm/v1"}
_SKIPPED = {"node_modules", "site-packages", "__pycache__"}


class UndecidedError(KitError):
    """Something was left for a person to decide. Exit code 4."""

    exit_code = 4


@app.command()
def migrate(  # noqa: PLR0917  # Typer calls it by name
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A Python file, or a directory of them.")],
    to: Annotated[str, typer.Option(help="holysheep, proxy, or a base URL.")] = "holysheep",
    model: Annotated[str, typer.Option(help="The model to ask.")] = "gpt-4.1",
    key_variable: Annotated[str, typer.Option(help="The variable that holds the key.")] = "HOLYSHEEP_API_KEY",
    write: Annotated[bool, typer.Option("--write", help="Change the files.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A report as JSON instead of the diff.")] = False,
) -> None:
    """Move Python clients of Dify's chat API to an OpenAI-compatible one; shows a diff, and writes with --write."""
    # Imported here: libcst takes longer to load than most commands take to run.
    from dify_kit.migration import rewriting  # noqa: PLC0415

    target = Target(_base_url(to), model, key_variable)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key_variable):
        raise UsageError(
            f"--key-variable {key_variable}: not a variable's name", "for example HOLYSHEEP_API_KEY"
        )
    if not path.exists():
        raise UsageError(f"{path} does not exist", "name a Python file or a directory")
    report: list[dict[str, Any]] = []
    left = 0
    sources = {file: _read(file) for file in _files(path)}
    words = Counter(word for source in sources.values() for word in _words(source))
    for file, before in sources.items():
        # What other files say: a function that is returned from may be called there.
        elsewhere = words - Counter(_words(before))
        result = rewriting.migrate(before, target, elsewhere.__contains__)
        if write and result.source != before:
            _replace(file, result.source)
        left += len(result.undecided)
        _tell(file, result)
        if result.migrated or result.undecided:
            report.append(_entry(file, result))
        if not as_json:
            typer.echo(_diff(file, before, result.source), nl=False)
    if as_json:
        typer.echo(json.dumps({"written": write, "files": report}, indent=2))
    say(
        f"{sum(item['migrated'] for item in report)} calls {'moved' if write else 'can be moved'}, {left} undecided"
    )
    if left:
        raise UndecidedError(f"{left} places are undecided", "change them by hand; they are listed above")


def _tell(file: Path, result: Result) -> None:
    for item in result.undecided:
        warn(f"{file}:{item.line}: {item.reason}")
    for item in result.leftovers:
        say(f"{file}:{item.line}: {item.reason}")


def _entry(file: Path, result: Result) -> dict[str, Any]:
    """Return a file's part of the report."""
    places = {
        name: [{"line": item.line, "reason": item.reason} for item in items]
        for name, items in (("undecided", result.undecided), ("leftovers", result.leftovers))
    }
    return {"file": str(file), "migrated": result.migrated, **places}


def _base_url(to: str) -> str:
    url = _PRESETS.get(to, to).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc or parts.query or parts.fragment:
        raise UsageError(f"--to {to}: not a base URL", "holysheep, proxy, or for example https://host/llm/v1")
    return url


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for root, directories, names in os.walk(path):  # follows no link to a directory
        here = Path(root)
        directories[:] = sorted(
            name
            for name in directories
            if not name.startswith(".") and name not in _SKIPPED and not (here / name / "pyvenv.cfg").exists()
        )
        for name in sorted(names):
            file = here / name
            if name.endswith(".py") and file.is_file() and not file.is_symlink():
                yield file


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise KitError(f"{file}: {error.strerror}", "check its permissions") from error


def _words(source: bytes) -> set[str]:
    """Return the names that a file calls, or imports."""
    text = source.decode("utf-8", "replace")
    imported = " ".join(re.findall(r"^.*\bimport\b.*$", text, re.MULTILINE))
    return {*re.findall(r"(\w+)\s*\(", text), *re.findall(r"\w+", imported)}


def _diff(file: Path, before: bytes, after: bytes) -> str:
    if before == after:
        return ""
    old, new = (data.decode("utf-8", "replace").splitlines(keepends=True) for data in (before, after))
    lines = difflib.unified_diff(old, new, f"a/{file}", f"b/{file}")
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _replace(file: Path, data: bytes) -> None:
    """Write next to the file and rename, so that a reader or a crash never meets half of it."""
    file = file.resolve()
    try:
        _write(file, data)
    except OSError as error:
        raise KitError(
            f"{file}: {error.strerror}", "check the directory's permissions and the disk"
        ) from error


def _write(file: Path, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as new:
        try:
            new.write(data)
            new.flush()
            os.fchmod(new.fileno(), file.stat().st_mode & 0o7777)
            os.fsync(new.fileno())
            Path(new.name).replace(file)
        except BaseException:
            Path(new.name).unlink(missing_ok=True)
            raise
