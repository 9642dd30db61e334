"""What the project declares: the settings of `Pulumi.yaml` with their defaults, and the form of a stack's name."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from infra.catalogue.yaml_reader import read_yaml

ROOT = Path(__file__).resolve().parents[2]
# A stack names containers, networks and volumes.
STACK_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}", re.ASCII)
STACK_NAME_RULE = "a lower-case letter, then at most 30 lower-case letters, digits or '-'"


_TYPES: Mapping[type, str] = MappingProxyType(
    {bool: "boolean", int: "integer", list: "array", dict: "object", str: "string"}
)


@cache
def declared() -> dict[str, dict[str, Any]]:
    """Return every setting of `Pulumi.yaml` by its key without `dify:`; its `type` is that of its default.

    The file names no types: Pulumi would check them by itself, one at a time and without the program's advice.
    """
    document = read_yaml((ROOT / "Pulumi.yaml").read_text(encoding="utf-8"))
    return {
        str(key): {"type": _TYPES[type(entry.get("default", ""))], **entry}
        for key, entry in document["config"].items()
    }
