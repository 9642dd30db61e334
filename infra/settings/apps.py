"""The DSL files of the apps."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from infra.catalogue.project import ROOT
from infra.catalogue.yaml_reader import read_yaml

DIRECTORY = ROOT / "apps"

# Smoke tests talk to these and to no other: the one that answers, and the one whose nodes run in other services.
CANARY, CANARY_NODES = "canary", "canary-nodes"
CANARIES = (CANARY, CANARY_NODES)

# In a file of apps/, a node with this provider and model uses the workspace's default LLM.
DEFAULT_PROVIDER, DEFAULT_MODEL = "dify-kit", "default"


def app_file(name: str, own: Path | None = None) -> Path:
    """Return the DSL file of an app; `own` is the directory of the setting `appsDir`."""
    file = f"{name}.yml"
    return own / file if own and name not in CANARIES and (own / file).is_file() else DIRECTORY / file


def known_apps(own: Path | None = None) -> list[str]:
    """Return the names of the apps that can be imported, without those of the smoke tests."""
    names = {path.stem for directory in (DIRECTORY, own) if directory for path in directory.glob("*.yml")}
    return sorted(name for name in names - set(CANARIES))


def needs_default_model(file: Path) -> bool:
    """Tell whether a node of the app in the file uses the default model; not of a file that is no DSL."""
    try:
        document = read_yaml(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError):
        return False
    return any(True for _ in _default_models(document))


def dsl_of(file: Path, provider: str, model: str) -> str:
    """Return the DSL of the app in the file, with this model where it names the default one."""
    text = file.read_text(encoding="utf-8")
    if not needs_default_model(file):
        return text
    document = read_yaml(text)
    for one in _default_models(document):
        one |= {"provider": provider, "name": model}
    return yaml.safe_dump(document, allow_unicode=True, sort_keys=False)


def _default_models(document: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401  # any YAML
    """Yield each object that names the default model."""
    if isinstance(document, dict):
        if document.get("provider") == DEFAULT_PROVIDER and document.get("name") == DEFAULT_MODEL:
            yield document
        for value in document.values():
            yield from _default_models(value)
    elif isinstance(document, list):
        for value in document:
            yield from _default_models(value)
