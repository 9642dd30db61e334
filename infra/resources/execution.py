"""Commands inside a container that end within a deadline. docker's own reader would wait for them without end."""

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a command wrote, and the engine's id of it. `late`: it was left running when its time was up."""

    id: str
    stdout: bytes
    stderr: bytes
    late: bool


def run(engine: Any, container: str, command: Sequence[str], *, seconds: float, line: bytes = b"") -> Ran:  # noqa: ANN401  # docker's APIClient
    """Run a command for at most `seconds`, with `line` on its standard input when given.

    With a line, the answer is a line too, and over when that has come: not every way to an engine can be
    closed in one direction, or passes on the end of a stream. Raises what docker, requests and sockets raise.
    """
    from docker.utils.socket import frames_iter  # noqa: PLC0415  # providers are pickled without the SDK

    made = engine.exec_create(container, list(command), stdin=bool(line))
    stream = engine.exec_start(made["Id"], socket=True)
    raw = getattr(stream, "_sock", stream)
    output = {1: b"", 2: b""}
    late = threading.Event()

    def give_up() -> None:
        # The reader polls without end; a connection that was shut down wakes it.
        late.set()
        with suppress(OSError):
            raw.shutdown(socket.SHUT_RDWR)

    watch = threading.Timer(seconds, give_up)
    watch.daemon = True
    watch.start()
    try:
        raw.settimeout(seconds)
        raw.sendall(line)
        for number, data in frames_iter(stream, tty=False):  # type: ignore[no-untyped-call]
            output[number] += data
            if line and number == 1 and data.endswith(b"\n"):
                break
    finally:
        watch.cancel()
        stream.close()
    return Ran(id=str(made["Id"]), stdout=output[1], stderr=output[2], late=late.is_set())
