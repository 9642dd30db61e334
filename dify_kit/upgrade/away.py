"""Measures for how long the api of a stack does not answer while it is deployed, at the published address."""

import http.client
import ssl
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from dify_kit.checks import published
from dify_kit.containers.docker_host import Engine
from dify_kit.stack import settings
from dify_kit.workspace.files import StackFiles

PAUSE_SECONDS, ANSWER_SECONDS = 0.5, 5.0
# The edge passes a key of this form on to Dify, whose answer is 401; no database row has it.
_PATH, _KEY = "/v1/info", "app-dify-kit-upgrade"


class Away:
    """Asks again and again while its block runs. `seconds` is how long no answer of Dify came."""

    def __init__(self, ask: Callable[[], bool] | None) -> None:
        self.seconds = 0.0
        self._ask = ask
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        if self._ask:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, after the request that is under way."""
        self._end.set()
        if self._ask:
            self._thread.join(2 * ANSWER_SECONDS)

    def _run(self) -> None:
        before, answered = time.monotonic(), True
        while self._ask and not self._end.is_set():
            now_answered = self._ask()
            now = time.monotonic()
            # From the first request that failed to the first that did not.
            if not answered:
                self.seconds += now - before
            before, answered = now, now_answered
            self._end.wait(PAUSE_SECONDS)


def watching(files: StackFiles, engine: Engine) -> Away:
    """Return a measurement of a stack; one that measures nothing where this machine does not reach its address."""
    found = published.find(files, engine)
    if found is None:
        return Away(None)
    reading = settings.read(files)
    if not reading.sound("tls", "httpsPort"):
        return Away(None)
    encrypted = reading.settings.tls.on
    port = reading.settings.https_port if encrypted else found.port

    def ask() -> bool:
        return _answers(found, port, encrypted=encrypted)

    return Away(ask)


def _answers(edge: published.Published, port: int, *, encrypted: bool) -> bool:
    """Tell whether Dify answers, with any status of its own."""
    connection: http.client.HTTPConnection
    if encrypted:
        # Only the status of the answer is read, and the key is none: the certificate may be anyone's.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = _Tls(edge.address, port, edge.host, context, edge.preface)
    else:
        connection = http.client.HTTPConnection(edge.address, port, timeout=ANSWER_SECONDS)
    try:
        connection.connect()
        if not encrypted:
            connection.sock.sendall(edge.preface)
        host = f"{edge.host}:{port}"
        connection.request("GET", _PATH, headers={"Host": host, "Authorization": f"Bearer {_KEY}"})
        return connection.getresponse().status < http.client.INTERNAL_SERVER_ERROR
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class _Tls(http.client.HTTPSConnection):
    """Connects to an address, sends what is before TLS, and names another host to the server."""

    def __init__(self, address: str, port: int, name: str, context: ssl.SSLContext, preface: bytes) -> None:
        super().__init__(address, port, timeout=ANSWER_SECONDS, context=context)
        self._name, self._ssl, self._preface = name, context, preface

    def connect(self) -> None:
        """Connect."""
        http.client.HTTPConnection.connect(self)
        self.sock.sendall(self._preface)
        self.sock = self._ssl.wrap_socket(self.sock, server_hostname=self._name)
