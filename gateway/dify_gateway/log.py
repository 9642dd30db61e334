"""The service's log: one JSON object a line on standard output. Callers pass no token, secret or key."""

import json
import re
import secrets
import sys
import threading
import time
import traceback
from typing import Any

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_lock = threading.Lock()


def write(event: str, *, level: str = "info", **fields: Any) -> None:  # noqa: ANN401  # whatever JSON holds
    """Write an event with its time (UTC) and level. Empty fields are omitted."""
    now = time.time()
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
    given = {name: value for name, value in fields.items() if value not in ("", None)}
    line = json.dumps({"time": moment, "level": level, "event": event, **given})
    with _lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def crash(event: str, problem: BaseException, **fields: Any) -> None:  # noqa: ANN401
    """Write an unexpected error: its type and traceback.

    Its message is omitted: a library may quote secrets in it.
    """
    frames = traceback.extract_tb(problem.__traceback__)
    places = [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
    write(event, level="error", problem=type(problem).__name__, where=places, **fields)


def request_id(given: str) -> str:
    """Return the request's id as nginx sent it, or a new one."""
    return given if REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
