"""Reads a stack's exports, the only source of these tests about a stack."""

import json
from typing import Any


class TargetError(Exception):
    """There is nothing to test; the message says what is missing and how to get it."""


def read_exports(stack: str) -> dict[str, Any]:
    """Return the exports of a stack, secrets in plain text. Raises TargetError when there are none."""
    # Imported late: tests of a bare URL need neither the engine nor the command line.
    from dify_kit.engine.cli import Pulumi  # noqa: PLC0415
    from dify_kit.errors import KitError  # noqa: PLC0415
    from dify_kit.workspace.files import StackFiles  # noqa: PLC0415

    try:
        files = StackFiles.open(stack)
        if not files.configured():
            raise TargetError(
                f"stack {stack} does not exist on this machine (no {files.stored}). "
                f"Deploy it with `make up STACK={stack}`, name another with --stack, "
                "or test an address with --url"
            )
        printed = Pulumi(files=files).run("stack", "output", "--json", "--show-secrets").stdout
    except KitError as problem:
        hint = f" ({problem.hint})" if problem.hint else ""
        raise TargetError(f"stack {stack}: its exports cannot be read: {problem.message}{hint}") from None
    exports: dict[str, Any] = json.loads(printed)
    if not exports.get("publicUrl"):
        raise TargetError(f"stack {stack} is not deployed: it has no exports. Run `make up STACK={stack}`")
    return exports
