"""nginx's files, rendered from the edge's context, and the revision that names them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from infra.edge.context import EdgeContext
from infra.edge.paths import EDGE_DIRECTORY
from infra.jinja import SUFFIX, jinja_environment, render


def edge_templates(overrides: Path | None = None) -> list[str]:
    """Return the nginx templates, ours and the operator's, by their path below templates/."""
    names = jinja_environment(overrides).list_templates(
        filter_func=lambda name: name.startswith("nginx/") and name.endswith(SUFFIX)
    )
    return sorted(names)


def template_of(path: str, overrides: Path | None = None) -> str:
    """Return the file that a rendered file of the edge comes from, by its path below the configuration."""
    found = jinja_environment(overrides).get_template(f"nginx/{path}{SUFFIX}").filename
    return str(found)


@dataclass(frozen=True, kw_only=True)
class EdgeConfiguration:
    """nginx's files by their path below the configuration's directory, and the name of them all."""

    revision: str
    files: Mapping[str, str]


def edge_configuration(context: EdgeContext, *, overrides: Path | None = None) -> EdgeConfiguration:
    """Render nginx's files.

    The revision that nginx reports is the digest of everything else: equal configurations have one name.
    """
    draft = _edge_files(replace(context, revision=""), overrides)
    text = "\0".join(f"{path}\0{text}" for path, text in sorted(draft.items()))
    revision = hashlib.sha256(text.encode()).hexdigest()[:12]
    return EdgeConfiguration(
        revision=revision, files=_edge_files(replace(context, revision=revision), overrides)
    )


def edge_files(context: EdgeContext, *, overrides: Path | None = None) -> dict[str, str]:
    """Render nginx's files as they lie in a directory of their own: absolute path -> text."""
    configuration = edge_configuration(context, overrides=overrides)
    return {f"{EDGE_DIRECTORY}/{path}": text for path, text in configuration.files.items()}


def _edge_files(context: EdgeContext, overrides: Path | None) -> dict[str, str]:
    return {
        template.removeprefix("nginx/").removesuffix(SUFFIX): render(template, {"edge": context}, overrides)
        for template in edge_templates(overrides)
    }
