"""External servers that cannot be used, by what a socket does: nothing listens, TLS is missing, a name is unknown.

`tests/integration/test_external_data.py` has the rules that need a real PostgreSQL and a real Redis.
"""

import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from infra.container_scripts.celery_health import Broker, SickError
from infra.guards import database, redis_server
from support.certificates import Pair, issue
from support.configuration import settings
from tests.unit.cli.conftest import FakeEngine

ADDRESS = "127.0.0.1"
PASSWORD = "external-password"  # of this test
SECRETS = {"externalDatabasePassword": PASSWORD, "externalRedisPassword": PASSWORD}
REDIS_VERSION = "redis_version:5.0.14\r\nrole:master\r\ncluster_enabled:0\r\n"


class Answers(socketserver.StreamRequestHandler):
    """A Redis of an old version: it answers each command that the check sends up to then."""

    received: ClassVar[list[list[str]]]

    def handle(self) -> None:
        while line := self.rfile.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(size + 2)[:-2].decode())
            self.received.append(words)
            if words[0] == "INFO":
                self.wfile.write(f"${len(REDIS_VERSION)}\r\n{REDIS_VERSION}\r\n".encode())
            else:
                self.wfile.write(b"+PONG\r\n" if words[0] == "PING" else b"+OK\r\n")


class Refuses(socketserver.BaseRequestHandler):
    """A PostgreSQL without TLS: it answers the request for TLS with N."""

    def handle(self) -> None:
        if self.request.recv(8):
            self.request.sendall(b"N")


class Closes(socketserver.BaseRequestHandler):
    """A server that ends every connection."""


@contextmanager
def serving(
    handler: type[socketserver.BaseRequestHandler], pair: Pair | None = None, directory: Path = Path()
) -> Iterator[int]:
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

        def get_request(self) -> tuple[Any, Any]:
            connection, address = super().get_request()
            return (context.wrap_socket(connection, server_side=True) if pair else connection), address

        def handle_error(self, request: Any, client_address: Any) -> None:  # as the base class has it
            """Say nothing: clients end connections in the middle here."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if pair:
        (directory / "server.pem").write_text(pair.pem, encoding="ascii")
        (directory / "server.key").write_text(pair.key_pem, encoding="ascii")
        context.load_cert_chain(directory / "server.pem", directory / "server.key")
    with Server((ADDRESS, 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture(autouse=True)
def loopback_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings reject this machine's loopback, which is another one in a container."""
    monkeypatch.setattr("infra.settings.external_data.is_loopback", lambda _host: False)


def refused_database(**given: Any) -> list[str]:  # parts of the setting
    return [
        one.text("unit") for one in database.refusals(settings({"database": given}, SECRETS), FakeEngine())
    ]


def refused_redis(**given: Any) -> list[str]:  # parts of the setting
    return [
        one.text("unit") for one in redis_server.refusals(settings({"redis": given}, SECRETS), FakeEngine())
    ]


def test_nothing_is_checked_without_an_external_server() -> None:
    assert refused_database() == []
    assert refused_redis() == []


def test_engine_elsewhere_leaves_the_servers_unchecked() -> None:
    found = settings({"database": {"host": "db.invalid"}, "redis": {"host": "redis.invalid"}}, SECRETS)

    assert database.refusals(found, FakeEngine(is_local=False)) == []
    assert redis_server.refusals(found, FakeEngine(is_local=False)) == []


def test_unknown_name_is_unreachable() -> None:
    assert refused_database(host="db.invalid")[0].startswith(
        "dify:database.host: db.invalid: port 5432 is unreachable"
    )
    assert refused_redis(host="redis.invalid")[0].startswith(
        "dify:redis.host: redis.invalid: port 6379 is unreachable"
    )


def test_database_without_tls_is_named_by_its_setting() -> None:
    with serving(Refuses) as port:
        (found,) = refused_database(host=ADDRESS, port=port, tls="require")

    assert found.startswith("dify:database.tls:")


def test_server_that_ends_connections_is_unreachable() -> None:
    with serving(Closes) as port:
        assert "dify:database" in refused_database(host=ADDRESS, port=port, tls="disable")[0]
        assert "dify:redis" in refused_redis(host=ADDRESS, port=port, tls=False)[0]


def test_redis_without_tls_is_named_by_its_setting() -> None:
    Answers.received = []
    with serving(Answers) as port:
        (found,) = refused_redis(host=ADDRESS, port=port, serverName="redis.example.com")

    assert found.startswith("dify:redis.tls:")


def test_old_redis_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    ca = issue(ca=True, name="data services")
    (tmp_path / "ca.pem").write_text(ca.pem, encoding="ascii")
    Answers.received = []
    with serving(Answers, issue(["redis.example.com"], issuer=ca), tmp_path) as port:
        (found,) = refused_redis(
            host=ADDRESS,
            port=port,
            user="dify",
            serverName="redis.example.com",
            caFile=str(tmp_path / "ca.pem"),
        )

    assert found == f"dify:redis.host: {ADDRESS} is Redis 5.0.14; use Redis 6 or newer"
    assert ["AUTH", "dify", PASSWORD] in Answers.received
    assert not {"SET", "LPUSH", "XADD"} & {words[0] for words in Answers.received}


@pytest.mark.parametrize(
    ("name", "trusted"), [("localhost", True), ("other.example.com", True), ("localhost", False)]
)
def test_health_check_of_celery_verifies_the_broker(tmp_path: Path, name: str, trusted: bool) -> None:
    ca, other = issue(ca=True, name="data services"), issue(ca=True, name="another")
    (tmp_path / "ca.pem").write_text((ca if trusted else other).pem, encoding="ascii")
    Answers.received = []
    with serving(Answers, issue([name], issuer=ca), tmp_path) as port:
        url, deadline = f"rediss://dify:{PASSWORD}@localhost:{port}/3", time.monotonic() + 5
        if name == "localhost" and trusted:
            assert Broker(url, deadline, str(tmp_path / "ca.pem")).ask("PING") == "PONG"
            assert Answers.received == [["AUTH", "dify", PASSWORD], ["SELECT", "3"], ["PING"]]
        else:
            with pytest.raises(ssl.SSLCertVerificationError):
                Broker(url, deadline, str(tmp_path / "ca.pem"))
            assert Answers.received == []


def test_health_check_of_celery_takes_no_other_address() -> None:
    with pytest.raises(SickError, match="rediss://"):
        Broker("amqp://broker/1", time.monotonic() + 1)
