"""Keeps a Redis from rewriting its append-only file while its volume is copied, as Redis's own documentation asks for.

The file that is appended to may end in the middle of a command: Redis drops that one when it starts.
"""

import contextlib
import time
from collections.abc import Iterator

from dify_kit.errors import KitError
from infra import engine
from infra.catalogue.container_paths import REDIS_PASSWORD_FILE
from infra.catalogue.ports import REDIS
from infra.catalogue.services import GATEWAY_REDIS
from infra.engine.runtime import WorkloadError, runtime

# The volume of each Redis, and the service.
OWNERS = {"redis": "redis", "gateway_redis": GATEWAY_REDIS}
_PERCENT = "auto-aof-rewrite-percentage"
# Redis's own default, which the kit's configuration leaves as it is.
_USUAL = "100"
_SECONDS, _POLL, _ENGINE_SECONDS = 300.0, 0.5, 60.0


@contextlib.contextmanager
def without_rewrites(container: str) -> Iterator[None]:
    """Turn rewrites off, and wait for one that is under way. Raises KitError."""
    _ask(container, "CONFIG", "SET", _PERCENT, "0")
    try:
        ends = time.monotonic() + _SECONDS
        while "aof_rewrite_in_progress:1" in (seen := _ask(container, "INFO", "persistence")):
            if time.monotonic() > ends:
                raise KitError(
                    f"Redis still rewrites its file after {_SECONDS:.0f} s: {seen.splitlines()[0]}",
                    "run the command again later",
                )
            time.sleep(_POLL)
        yield
    finally:
        with_rewrites(container)


def with_rewrites(container: str) -> None:
    """Turn rewrites on. Raises KitError."""
    _ask(container, "CONFIG", "SET", _PERCENT, _USUAL)


def _ask(container: str, *words: str) -> str:
    script = f'REDISCLI_AUTH="$(cat {REDIS_PASSWORD_FILE})" exec redis-cli -p {REDIS} "$@"'
    try:
        with runtime(container, _ENGINE_SECONDS) as there:
            ran = there.run(["sh", "-c", script, "sh", *words])
    except (WorkloadError, engine.EngineChoiceError, OSError) as problem:
        raise KitError(f"Redis cannot be asked: {problem}", "is the stack up?") from None
    if ran.code or ran.output.startswith("ERR"):
        raise KitError(f"Redis refused {' '.join(words)}: {ran.output.strip()[-300:]}", "see its log")
    return ran.output
