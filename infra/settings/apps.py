"""The DSL files of the apps."""

from pathlib import Path

from infra.catalogue.project import ROOT

DIRECTORY = ROOT / "apps"

# Smoke tests talk to these and to no other: the one that answers, and the one whose nodes run in other services.
CANARY, CANARY_NODES = "canary", "canary-nodes"
CANARIES = (CANARY, CANARY_NODES)


def app_file(name: str) -> Path:
    """Return the DSL file of an app."""
    return DIRECTORY / f"{name}.yml"


def known_apps() -> list[str]:
    """Return the names of the apps that can be imported, without those of the smoke tests."""
    return sorted(path.stem for path in DIRECTORY.glob("*.yml") if path.stem not in CANARIES)
