"""The folders of `infra/` and `dify_kit/` build on each other in one direction, and each module fits its folder."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.catalogue.project import ROOT

# Each folder or module imports from those before it alone.
LAYERS = (
    "infra.catalogue",
    "infra.hints",
    "infra.masking",
    "infra.jinja",
    "infra.container_scripts",
    "infra.settings",
    "infra.engine",
    "infra.edge",
    "infra.services",
    "infra.resources",
    "infra.platforms",
    "infra.guards",
    "infra.tiers",
    "infra.exports",
    "infra.serving",
    "infra.__main__",
    "dify_kit.errors",
    "dify_kit.talk",
    "dify_kit.chromium",
    "dify_kit.workspace",
    "dify_kit.containers",
    "dify_kit.setup",
    "dify_kit.engine",
    "dify_kit.stack",
    "dify_kit.checks",
    "dify_kit.images",
    "dify_kit.watch",
    "dify_kit.releases",
    "dify_kit.costs",
    "dify_kit.migration",
    "dify_kit.benchmark",
    "dify_kit.smoke",
    "dify_kit.deploying",
    "dify_kit.backup",
    "dify_kit.upgrade",
    "dify_kit.pruning",
    "dify_kit.app",
    "dify_kit.commands",
    "dify_kit.__main__",
)
PACKAGES = ("infra", "dify_kit")
# The same for whole packages.
ORDER = ("dify_gateway", "infra", "dify_kit", "smoke_tests", "support", "bench", "docsite", "tests")


def _modules(package: str) -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _layer(name: str) -> str:
    return ".".join(name.split(".")[:2])


MODULES = {name: path for package in PACKAGES for name, path in _modules(package).items() if "." in name}


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down_the_layers(name: str) -> None:
    own = LAYERS.index(_layer(name))

    upward = [
        found
        for found in _imports(MODULES[name])
        if found.startswith(tuple(f"{package}." for package in PACKAGES))
        and _layer(found) in LAYERS
        and LAYERS.index(_layer(found)) > own
    ]

    assert upward == []


def test_every_folder_has_its_layer() -> None:
    assert {_layer(name) for name in MODULES} == set(LAYERS)


@pytest.mark.parametrize("package", ORDER[:-1])
def test_packages_import_from_those_before_them(package: str) -> None:
    folder = ROOT / "gateway" / package if package == "dify_gateway" else ROOT / package
    later = tuple(f"{name}." for name in ORDER[ORDER.index(package) + 1 :])
    paths = sorted(folder.rglob("*.py"))

    assert paths
    assert [(path.name, name) for path in paths for name in _imports(path) if name.startswith(later)] == []


# A module longer than this has more than one reason to change.
MAX_LINES = 400
FOLDERS = (
    "bench",
    "dify_kit",
    "docsite",
    "gateway",
    "infra",
    "smoke_tests",
    "standin",
    "support",
    "templates/nginx/njs",
)


@pytest.mark.parametrize("folder", FOLDERS)
def test_modules_are_short(folder: str) -> None:
    sources = [path for kind in ("py", "js") for path in (ROOT / folder).rglob(f"*.{kind}")]
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in sources
    }

    assert lengths
    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}
