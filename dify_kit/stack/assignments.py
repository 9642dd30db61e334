"""Settings of a command line: `--set KEY=VALUE`. KEY is a path and VALUE a text, as for `dify-kit set`."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from dify_kit.errors import UsageError
from dify_kit.stack import changing, setting_path
from infra.settings import stack as stack_settings
from infra.settings.given import Given


def assigned(items: Sequence[str], stack: str) -> list[tuple[setting_path.Path, object]]:
    """Return path and value of each item, in their order. Raises UsageError."""
    found: dict[str, Any] = {}
    parts: list[tuple[setting_path.Path, object]] = []
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise UsageError(
                f"--set {item}: KEY=VALUE is expected",
                "for example: --set maxUploadMegabytes=50 or --set tls.mode=selfsigned",
            )
        path = setting_path.read(key)
        value = changing.value_of(path, text, partial(_problems, found, path, stack))
        if value is None:
            raise UsageError(f"--set {item}: null is no value", "leave it out: the default counts")
        found = setting_path.put(found, path, value)
        parts.append((path, value))
    return parts


def _problems(found: dict[str, Any], path: setting_path.Path, stack: str, value: object) -> tuple[str, ...]:
    planned = Given(values=setting_path.put(found, path, value), encrypted=frozenset())
    return stack_settings.read(planned, stack).problems
