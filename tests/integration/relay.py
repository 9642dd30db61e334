"""A TCP relay on an address of this machine, to a container that other containers cannot reach."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PIECE = 65536


class _Passing(socketserver.BaseRequestHandler):
    target: tuple[str, int]

    def handle(self) -> None:
        with socket.create_connection(self.target, timeout=10) as other:
            other.settimeout(None)
            back = threading.Thread(target=_pass, args=(other, self.request), daemon=True)
            back.start()
            _pass(self.request, other)
            back.join()


def _pass(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(PIECE):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        # One side has gone: the other one is told.
        for end in (source, target):
            end.close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextmanager
def relay(address: str, target: tuple[str, int]) -> Iterator[int]:
    """Pass connections to a free port of an address on to `target` while the context lasts; yield the port."""
    handler = type("Passing", (_Passing,), {"target": target})
    with _Server((address, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join(timeout=10)
