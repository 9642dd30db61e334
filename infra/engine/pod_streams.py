"""Commands in a container of a pod whose input or output is long: it passes in frames, and memory does not grow.

The client of the `kubernetes` package keeps what it has read until it is asked for, so frames are read here, from its
WebSocket. A server that works without a word is kept awake by pings, and so is what stands between it and this machine.
"""

import json
import select
import ssl
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from infra.engine.cluster import Cluster

STDOUT, STDERR, STATUS = 1, 2, 3
PING_SECONDS = 20.0
# Servers of older releases read frames into buffers of this size.
_FRAME_BYTES = 32 << 10
_MOST_OUTPUT = 16 << 10


class BrokenStreamError(Exception):
    """The connection ended before the command did, or nothing came in the time that it had."""


class Stream:
    """A command that runs. `code` is its exit code once it has ended, `errors` the end of what it wrote to stderr."""

    def __init__(self, socket: Any) -> None:  # noqa: ANN401  # websocket.WebSocket
        self._socket = socket
        self.code: int | None = None
        self._errors = bytearray()

    @property
    def errors(self) -> str:
        """The end of standard error."""
        return self._errors.decode(errors="replace")

    def output(self, silence: float) -> Iterator[bytes]:
        """Yield standard output until the command ends. Raises BrokenStreamError after `silence` seconds of nothing."""
        while self.code is None:
            if data := self._frame(silence):
                yield data

    def send(self, content: Iterable[bytes], seconds: float) -> None:
        """Write standard input, at most `seconds` for a frame, until the command has ended or taken all of it."""
        for block in content:
            for at in range(0, len(block), _FRAME_BYTES):
                # What it writes must be taken, or it stops reading.
                while self._readable():
                    self._frame(seconds)
                if self.code is not None:
                    return
                self._socket.settimeout(seconds)
                self._socket.send_binary(b"\0" + block[at : at + _FRAME_BYTES])

    def _readable(self) -> bool:
        raw = self._socket.sock
        if self.code is not None:
            return False
        if isinstance(raw, ssl.SSLSocket) and raw.pending():
            return True
        poll = select.poll()
        poll.register(raw, select.POLLIN)
        return bool(poll.poll(0))

    def _frame(self, silence: float) -> bytes:
        """Return what a frame has of standard output; nothing for one of something else."""
        from websocket import ABNF, WebSocketTimeoutException  # noqa: PLC0415

        deadline = time.monotonic() + silence
        while True:
            self._socket.settimeout(max(0.1, min(PING_SECONDS, deadline - time.monotonic())))
            try:
                code, frame = self._socket.recv_data_frame(True)
            except WebSocketTimeoutException:
                if time.monotonic() >= deadline:
                    raise BrokenStreamError(f"nothing came for {silence:.0f} s") from None
                self._socket.ping()
                continue
            if code == ABNF.OPCODE_CLOSE:
                raise BrokenStreamError("the connection ended before the command did")
            if code in {ABNF.OPCODE_BINARY, ABNF.OPCODE_TEXT} and frame.data:
                return self._taken(frame.data[0], frame.data[1:])
            if time.monotonic() >= deadline:
                raise BrokenStreamError(f"nothing but pings came for {silence:.0f} s")

    def _taken(self, number: int, data: bytes) -> bytes:
        if number == STDOUT:
            return data
        if number == STDERR:
            self._errors += data
            del self._errors[:-_MOST_OUTPUT]
        elif number == STATUS:
            self.code = _code(data)
        return b""


def _code(status: bytes) -> int:
    found = json.loads(status)
    if found.get("status") == "Success":
        return 0
    causes = (found.get("details") or {}).get("causes") or []
    codes = [one["message"] for one in causes if one.get("reason") == "ExitCode"]
    if not codes:
        raise BrokenStreamError(str(found.get("message") or "the cluster says nothing of its end"))
    return int(codes[0])


@contextmanager
def running(
    cluster: Cluster, namespace: str, pod: str, container: str, command: Sequence[str], *, stdin: bool = False
) -> Iterator[Stream]:
    """Run a command in a container. Raises ClusterError where it cannot run, or the connection breaks."""
    with cluster.channel(namespace, pod, container, command, stdin=stdin) as channel:
        yield Stream(channel.sock)
