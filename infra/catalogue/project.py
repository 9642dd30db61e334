"""What `Pulumi.yaml` declares: the settings that exist and their defaults."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


@cache
def declared() -> dict[str, dict[str, Any]]:
    """Return every setting of `Pulumi.yaml` by its key without `dify:`."""
    document = yaml.safe_load((ROOT / "Pulumi.yaml").read_text(encoding="utf-8"))
    return {str(key): dict(entry) for key, entry in document["config"].items()}
