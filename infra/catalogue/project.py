"""What the project declares: the settings of `Pulumi.yaml` with their defaults, and the form of a stack's name."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
# A stack names containers, networks and volumes.
STACK_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}", re.ASCII)
STACK_NAME_RULE = "a lower-case letter, then at most 30 lower-case letters, digits or '-'"


@cache
def declared() -> dict[str, dict[str, Any]]:
    """Return every setting of `Pulumi.yaml` by its key without `dify:`."""
    document = yaml.safe_load((ROOT / "Pulumi.yaml").read_text(encoding="utf-8"))
    return {str(key): dict(entry) for key, entry in document["config"].items()}
