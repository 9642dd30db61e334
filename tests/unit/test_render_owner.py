"""The LLM proxy with an owner of its counts, rendered: nginx passes requests to it, and the owner does the rest."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.catalogue.releases import RELEASES
from infra.catalogue.services import LLM_EDGE, NGINX
from infra.edge import check as nginx_check
from infra.edge.context import EdgeContext
from infra.edge.paths import EDGE_DIRECTORY
from infra.edge.render import edge_files
from infra.edge.roles import edge_contexts
from support.configuration import settings
from tests.integration.edge.oauth import settings_of_gate
from tests.unit.test_render import doubled_headers, written
from tests.unit.test_render_oauth import OAUTH
from tests.unit.test_settings_kubernetes import on_cluster

KEY = {"llmKeys": json.dumps({"holysheep": "hs-0123456789-0123456789-wxyz"})}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tls": {"publicUrl": "https://dify.example.com", "trustedProxies": ["10.0.0.0/8"], "accessLog": "errors"},
    "no log": {"accessLog": "off"},
    "litellm": {"llm": {"enabled": True, "engine": "litellm"}},
    "several": {"replicas": {"edge": 3}},
}


def contexts(
    plain: dict[str, Any] | None = None, *, everything: bool = False, llm: bool = True
) -> dict[str, EdgeContext]:
    """Return what the templates read on a cluster; `everything`: with OAuth and a gate."""
    given = dict(plain or {})
    given = {
        **on_cluster(replicas=given.pop("replicas", {})),
        **({"llm": {"enabled": True}} if llm else {}),
        **given,
    }
    found = settings(given, KEY if llm else {})
    if everything:
        found = replace(found, oauth=OAUTH, oidc_gate=settings_of_gate())
    return edge_contexts(found, RELEASES[found.release])


def names(files: dict[str, str]) -> set[str]:
    """Return the templates and scripts of rendered files."""
    paths = {path.removeprefix(f"{EDGE_DIRECTORY}/") for path in files}
    return {
        f"nginx/{path}" if path.endswith((".js", "package.json")) else f"nginx/{path}.j2" for path in paths
    }


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("service", [LLM_EDGE, NGINX])
def test_every_variant_parses_and_gixy_finds_nothing(
    service: str, variant: str, everything: bool, tmp_path: Path
) -> None:
    files = edge_files(contexts(VARIANTS[variant], everything=everything)[service])
    directory = written(files, tmp_path)

    nginx_check.parse(directory)
    assert nginx_check.lint(directory) == []
    assert doubled_headers(files, tmp_path) == []
