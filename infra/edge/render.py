"""The files of nginx, rendered from the edge's context, and their revision."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from infra.edge.context import EdgeContext
from infra.edge.owner import belongs
from infra.edge.paths import EDGE_DIRECTORY
from infra.edge.ring import TEMPLATES as RING_TEMPLATES
from infra.jinja import SCRIPT_SUFFIX, SUFFIX, RenderError, jinja_environment, render, source

TUNNEL_SCRIPT = "nginx/njs/tunnel.js"


def edge_sources(overrides: Path | None = None) -> list[str]:
    """Return nginx's templates and scripts, ours and the operator's, by their path below templates/.

    Raises RenderError for a template and a script that become the same file.
    """
    names = jinja_environment(overrides).list_templates(
        filter_func=lambda name: name.startswith("nginx/") and name.endswith((SUFFIX, SCRIPT_SUFFIX))
    )
    if twice := [name for name in names if f"{name}{SUFFIX}" in names]:
        raise RenderError(
            f"{twice[0]}{SUFFIX} and {twice[0]} become the same file: a script that takes the place of ours "
            f"is called {twice[0]}"
        )
    return sorted(names)


def template_of(path: str, overrides: Path | None = None) -> str:
    """Return the template of a rendered file, by the file's path below the configuration."""
    names = (f"nginx/{path}", f"nginx/{path}{SUFFIX}")
    return str(next(found for name in names if (found := source(name, overrides)) is not None))


@dataclass(frozen=True, kw_only=True)
class EdgeConfiguration:
    """The files of nginx by their path below the configuration's directory, and their revision."""

    revision: str
    files: Mapping[str, str]


def edge_configuration(context: EdgeContext, *, overrides: Path | None = None) -> EdgeConfiguration:
    """Render nginx's files.

    The revision that nginx reports is the digest of all files without it: equal configurations have equal revisions.
    """
    draft = _edge_files(replace(context, revision=""), overrides)
    text = "\0".join(f"{path}\0{text}" for path, text in sorted(draft.items()))
    revision = hashlib.sha256(text.encode()).hexdigest()[:12]
    return EdgeConfiguration(
        revision=revision, files=_edge_files(replace(context, revision=revision), overrides)
    )


def edge_files(context: EdgeContext, *, overrides: Path | None = None) -> dict[str, str]:
    """Render the files of nginx by their absolute path in its container."""
    configuration = edge_configuration(context, overrides=overrides)
    return {f"{EDGE_DIRECTORY}/{path}": text for path, text in configuration.files.items()}


def _edge_files(context: EdgeContext, overrides: Path | None) -> dict[str, str]:
    def text_of(name: str) -> str:
        script = source(name, overrides) if name.endswith(SCRIPT_SUFFIX) else None
        return script.read_text(encoding="utf-8") if script else render(name, {"edge": context}, overrides)

    return {
        name.removeprefix("nginx/").removesuffix(SUFFIX): text_of(name)
        for name in edge_sources(overrides)
        # Without a tunnel nothing imports it.
        if name != TUNNEL_SCRIPT or (context.llm and context.llm.tunnel)
        if name not in RING_TEMPLATES or context.ring
        if belongs(name, context.owner)
    }
