"""Rendering one template: its text from its context. Pure, except for reading templates.

Operators extend without forking: a directory of their own (`dify:templatesDir`) shadows any template by its
path below templates/, and adds snippets where the templates include them.
"""

import re
from pathlib import Path
from types import CodeType

import jinja2
import jinja2.bccache

from infra.catalogue.project import ROOT

TEMPLATES = ROOT / "templates"
SUFFIX = ".j2"
# Files of nginx that are no templates: scripts go as they are, and what is rendered is data next to them.
SCRIPT_SUFFIX = ".js"


class RenderError(Exception):
    """A template cannot be rendered. The message names the template and the line."""


def escape_regex(text: str) -> str:
    """Escape text for a regular expression inside a quoted nginx string.

    Only letters, digits and the punctuation of paths and origins may come here; settings let nothing else in.
    """
    if not re.fullmatch(r"[A-Za-z0-9._:/\[\]-]+", text):
        raise ValueError(f"{text!r} is not possible in an nginx pattern")
    return re.sub(r"([.\[\]])", r"\\\1", text)


class _Compiled(jinja2.BytecodeCache):
    """Compiled templates of this process, by their source: a template that changes is compiled again."""

    def __init__(self) -> None:
        self._code: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        bucket.code = self._code.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        if bucket.code is not None:
            self._code[bucket.key, bucket.checksum] = bucket.code


_COMPILED = _Compiled()


def jinja_environment(overrides: Path | None = None) -> jinja2.Environment:
    """Return the environment of all templates; a file in `overrides` comes before ours of the same path."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_directories(overrides)),
        # A missing value stops the render; it never becomes an empty string.
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  # configuration files, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        bytecode_cache=_COMPILED,
    )
    environment.filters["regex"] = escape_regex
    return environment


def render(template: str, context: dict[str, object], overrides: Path | None = None) -> str:
    """Render one template by its path below templates/. Raises RenderError."""
    try:
        return jinja_environment(overrides).get_template(template).render(context)
    except jinja2.TemplateSyntaxError as problem:
        raise RenderError(
            f"{problem.name or template}, line {problem.lineno}: {problem.message}"
        ) from problem
    except (jinja2.TemplateError, ValueError, TypeError) as problem:
        raise RenderError(f"{template}{_line_of(problem)}: {problem}") from problem


def _directories(overrides: Path | None) -> list[Path]:
    return [overrides, TEMPLATES] if overrides else [TEMPLATES]


def source(name: str, overrides: Path | None) -> Path | None:
    """Return the file of this path below templates/, the operator's before ours; None where there is none."""
    return next((path for one in _directories(overrides) if (path := one / name).is_file()), None)


def _line_of(problem: BaseException) -> str:
    """Return the template's line from the traceback: Jinja puts its own frames there."""
    line = ""
    trace = problem.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.endswith(SUFFIX):
            line = f", line {trace.tb_lineno}"
        trace = trace.tb_next
    return line
