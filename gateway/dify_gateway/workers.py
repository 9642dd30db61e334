"""The status of each worker process in a file of its own, so that /healthz of one worker reports on all."""

import json
import os
from pathlib import Path
from typing import Any

DIRECTORY = Path(os.environ.get("DIFY_GATEWAY_RUN", "/dev/shm/dify-gateway"))  # noqa: S108  # private to the container


def report(revision: str, problem: str) -> None:
    """Store the revision that this process serves, and the problem of a newer one."""
    DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = DIRECTORY / f".{os.getpid()}"
    draft.write_text(json.dumps({"revision": revision, "problem": problem}), encoding="utf-8")
    draft.rename(DIRECTORY / str(os.getpid()))


def reports() -> list[dict[str, Any]]:
    """Return the reports of the running processes; files of ended ones are removed."""
    found = []
    for path in sorted(DIRECTORY.glob("[0-9]*")):
        if not Path(f"/proc/{path.name}").exists():
            path.unlink(missing_ok=True)
            continue
        try:
            found.append({"worker": int(path.name), **json.loads(path.read_text(encoding="utf-8"))})
        except (OSError, ValueError):
            continue  # it ended, or is being written
    return found
