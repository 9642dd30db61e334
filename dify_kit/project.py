"""What ``Pulumi.yaml`` says about the settings. Defaults stand there and nowhere else."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from dify_kit.errors import KitError
from dify_kit.stack_files import CHECKOUT, PROJECT


@cache
def _settings(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        declared = document["config"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as problem:
        raise KitError(f"{path} cannot be read: {problem!r}", "restore it from the repository") from None
    return {str(key).removeprefix(f"{PROJECT}:"): entry for key, entry in declared.items()}


def default(key: str, checkout: Path = CHECKOUT) -> Any:  # noqa: ANN401  # a setting may have any YAML type
    """Return the default of setting ``key`` (without ``dify:``), or None when it has none."""
    entry = _settings(checkout / "Pulumi.yaml").get(key)
    return entry.get("default") if isinstance(entry, dict) else None


def declares(key: str, checkout: Path = CHECKOUT) -> bool:
    """Whether ``Pulumi.yaml`` knows setting ``key``."""
    return key in _settings(checkout / "Pulumi.yaml")
