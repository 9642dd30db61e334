"""The port is free, or ours, before anything is created."""

import socket
from collections.abc import Iterator

import pulumi
import pytest

from infra import port_guard
from tests.unit.configuration import settings


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of this machine on which something listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield int(server.getsockname()[1])


def published_by(monkeypatch: pytest.MonkeyPatch, *containers: str) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(port_guard, "publishers", lambda _port: list(containers))


def test_port_of_another_process_is_refused(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    published_by(monkeypatch)

    with pytest.raises(pulumi.RunError) as problem:
        port_guard.check(settings({"httpPort": taken}))

    assert str(problem.value) == (
        f"dify:httpPort: {taken} on 127.0.0.1 cannot be used: Address already in use; stop what uses it, or "
        "choose another port: `pulumi config set dify:httpPort <port> --stack unit`"
    )


def test_port_of_another_container_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    published_by(monkeypatch, "somebody")

    with pytest.raises(pulumi.RunError, match="dify:httpPort: 8123 is published by container somebody; stop"):
        port_guard.check(settings({"httpPort": 8123}))


def test_port_of_our_own_edge_is_ours(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    published_by(monkeypatch, "dify-unit-nginx")

    port_guard.check(settings({"httpPort": taken}))


def test_free_port_is_fine(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    published_by(monkeypatch)

    # The same port of another address is another one.
    port_guard.check(settings({"httpPort": taken, "bindAddress": "127.0.0.2"}))


def test_ports_of_this_machine_say_nothing_about_a_remote_engine(
    monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    published_by(monkeypatch)
    monkeypatch.setenv("DOCKER_HOST", "ssh://operator@far.example")

    port_guard.check(settings({"httpPort": taken}))


def test_engine_that_is_away_is_left_to_the_provider(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")

    assert port_guard.publishers(taken) is None
    port_guard.check(settings({"httpPort": taken}))
