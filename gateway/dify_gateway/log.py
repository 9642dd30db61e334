"""The service's log: one JSON object a line on standard output. No token, secret or key is ever passed to it."""

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


def write(event: str, *, level: str = "info", **fields: Any) -> None:  # noqa: ANN401  # any JSON value
    """Write an event. Empty fields are left out."""
    now = time.time()
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
    told = {name: value for name, value in fields.items() if value not in ("", None)}
    line = json.dumps({"time": moment, "level": level, "event": event, **told})
    with _lock:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def crash(event: str, problem: BaseException, **fields: Any) -> None:  # noqa: ANN401
    """Write an unexpected error: its type and where it was raised.

    Its message is left out, because a library may quote a secret in it.
    """
    frames = traceback.extract_tb(problem.__traceback__)
    places = [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames[-8:]]
    write(event, level="error", problem=type(problem).__name__, where=places, **fields)


def request_id(given: str) -> str:
    """Return the request's id as nginx sent it, or a new one."""
    return given if REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
