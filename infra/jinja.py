"""Rendering one template: its text from its context. Pure, except for reading templates.

Operators extend without forking: a directory of their own (`dify:templatesDir`) shadows any template by its
path below templates/, and adds snippets where the templates include them.
"""

import re
from pathlib import Path

import jinja2

from infra.catalogue.project import ROOT

TEMPLATES = ROOT / "templates"
SUFFIX = ".j2"
SNIPPETS = "snippets"


class RenderError(Exception):
    """A template cannot be rendered. The message names the template and the line."""


def escape_regex(text: str) -> str:
    """Escape text for a regular expression inside a quoted nginx string.

    Only letters, digits and the punctuation of paths and origins may come here; settings let nothing else in.
    """
    if not re.fullmatch(r"[A-Za-z0-9._:/\[\]-]+", text):
        raise ValueError(f"{text!r} cannot stand in an nginx pattern")
    return re.sub(r"([.\[\]])", r"\\\1", text)


def jinja_environment(overrides: Path | None = None) -> jinja2.Environment:
    """Return the environment of all templates; a file in `overrides` comes before ours of the same path."""
    directories = [overrides, TEMPLATES] if overrides else [TEMPLATES]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(directories),
        # A missing value stops the render; it never becomes an empty string.
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  # configuration files, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
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


def _line_of(problem: BaseException) -> str:
    """Return the template's line from the traceback: Jinja puts its own frames there."""
    line = ""
    trace = problem.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.endswith(SUFFIX):
            line = f", line {trace.tb_lineno}"
        trace = trace.tb_next
    return line
