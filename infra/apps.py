"""Where the apps' DSL files lie."""

from pathlib import Path

DIRECTORY = Path(__file__).resolve().parents[1] / "apps"

# Smoke tests talk to this one and to no other.
CANARY = "canary"


def app_file(name: str) -> Path:
    """Return the DSL file of an app."""
    return DIRECTORY / f"{name}.yml"


def known_apps() -> list[str]:
    """Return the names of the apps that can be imported, without the canary."""
    return sorted(path.stem for path in DIRECTORY.glob("*.yml") if path.stem != CANARY)
