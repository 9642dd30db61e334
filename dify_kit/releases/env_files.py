"""The .env files of a compose folder."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from dotenv.parser import parse_stream

from dify_kit.releases.interpolation import InterpolationError, Lookup, interpolate

_NAME = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)


class EnvFileError(ValueError):
    """A line that Compose would refuse. The message names file, line and fault."""


def read(path: Path, lookup: Lookup | None = None, *, raw: bool = False) -> dict[str, str]:
    """Return the variables of a file, with those in their values replaced.

    What `lookup` knows goes before an earlier line of the file, as in Compose. `raw` replaces nothing, and neither do
    single quotes. Raises EnvFileError.
    """
    found: dict[str, str] = {}
    with path.open(encoding="utf-8") as stream:
        for binding in parse_stream(stream):
            where = f"{path}, line {binding.original.line}"
            if binding.error or not (binding.key is None or _NAME.fullmatch(binding.key)):
                raise EnvFileError(f"{where}: not NAME=value: {binding.original.string.strip()!r}")
            # A comment, an empty line, or a name alone, which sets nothing where nothing outside does.
            if binding.key is None or binding.value is None:
                continue
            if raw or _literal(binding.original.string):
                found[binding.key] = binding.value
                continue
            try:
                found[binding.key] = interpolate(binding.value, _before(lookup, found))
            except InterpolationError as problem:
                raise EnvFileError(f"{where}: {problem}") from None
    return found


def _literal(line: str) -> bool:
    return line.partition("=")[2].lstrip().startswith("'")


def _before(lookup: Lookup | None, found: Mapping[str, str]) -> Callable[[str], str | None]:
    def known(name: str) -> str | None:
        value = lookup(name) if lookup else None
        return found.get(name) if value is None else value

    return known
