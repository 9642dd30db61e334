"""Settings that cannot work are refused by plain `pulumi up` too, before it creates anything."""

import socket
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from support.stacks import Stack


@pytest.fixture
def undeployed(tmp_path: Path) -> Iterator[Stack]:
    """A stack that was never deployed."""
    stack = Stack(home=tmp_path / "home")
    try:
        created = stack.init()
        assert created.code == 0, created.output
        yield stack
    finally:
        stack.remove()


def created(stack: Stack) -> list[str]:
    """Return the names of everything of the stack that exists on the engine."""
    networks = docker.from_env().networks.list(filters={"name": f"dify-{stack.name}-"})
    return [*stack.containers(), *stack.volumes(), *(str(network.name) for network in networks)]


def test_port_of_another_process_is_refused_before_anything_is_created(undeployed: Stack) -> None:
    with socket.create_server(("127.0.0.1", undeployed.port)):
        plain = undeployed.pulumi("up", "--yes", "--skip-preview")
        kit = undeployed.try_up()

    for refused in (plain, kit):
        assert refused.code != 0
        assert f"dify:httpPort: {undeployed.port} on 127.0.0.1 cannot be used: Address already in use" in (
            refused.output
        )
        assert "dify-kit set httpPort" in refused.output
        assert "Traceback" not in refused.output
    assert created(undeployed) == []


def test_malformed_settings_are_refused_before_anything_is_created(undeployed: Stack) -> None:
    undeployed.set_config("logLevel", "loud")
    undeployed.set_config("cors.v1[0]", "https://app.example.com/")

    plain = undeployed.pulumi("up", "--yes", "--skip-preview")

    assert plain.code != 0
    for told in ("dify:logLevel: 'loud'", "DEBUG, INFO", "dify:cors.v1: 'https://app.example.com/'"):
        assert told in plain.output
    assert "Traceback" not in plain.output
    assert created(undeployed) == []
