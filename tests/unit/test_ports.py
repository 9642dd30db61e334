"""Ports that tests get: never one twice, none of another worker, none that something has."""

import socket

import pytest

from support import ports
from support.ports import FIRST, LAST, free_port


def test_no_port_is_given_twice() -> None:
    found = [free_port() for _ in range(200)]

    assert len(set(found)) == len(found)
    assert all(FIRST <= port <= LAST for port in found)


def test_workers_of_a_run_have_different_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "3")
    found: list[set[int]] = []
    for number in range(3):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", f"gw{number}")
        found.append({(free_port() - FIRST) % 3 for _ in range(20)})

    assert found == [{0}, {1}, {2}]


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_that_something_has_is_not_given(
    monkeypatch: pytest.MonkeyPatch, kind: socket.SocketKind
) -> None:
    with socket.socket(type=kind) as taken:
        taken.bind(("127.0.0.1", free_port()))
        port = taken.getsockname()[1]
        tried = iter([port, free_port()])
        monkeypatch.setattr(ports, "_given", set())
        monkeypatch.setattr("support.ports.random.randrange", lambda *_: next(tried))

        assert free_port() != port


def test_without_a_free_port_the_error_names_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_free", lambda *_: False)

    with pytest.raises(OSError, match=r"127\.0\.0\.9 has no free port"):
        free_port("127.0.0.9")
