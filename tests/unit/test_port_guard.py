"""Ports and addresses are free, or ours, before anything is created or removed."""

import hashlib
import ipaddress
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pulumi
import pytest

from infra import engine
from infra.engine import host_addresses
from infra.guards import checks
from infra.guards import ports as port_guard
from infra.guards.findings import Publisher
from infra.guards.ports import published
from infra.settings.network import addresses_of
from infra.settings.stack import Settings
from support.configuration import settings

EDGE = "dify-unit-nginx"
# Documentation addresses (RFC 5737, RFC 3849), of which no machine has one.
FOREIGN = ("198.51.100.7", "2001:db8::7")


@pytest.fixture(autouse=True)
def _engine_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in engine.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of this machine on which something listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield int(server.getsockname()[1])


@pytest.fixture(autouse=True)
def _no_volumes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.guards.volumes.existing", lambda _names: {})
    monkeypatch.setattr("infra.guards.containers.existing", lambda _endpoint, _names: {})


def check(found: Settings) -> None:
    """Make the checks of the program."""
    checks.check(found, found.dify, "")


def published_by(monkeypatch: pytest.MonkeyPatch, **containers: tuple[str, ...]) -> None:
    found = [Publisher(container=name.replace("_", "-"), addresses=at) for name, at in containers.items()]
    monkeypatch.setattr(port_guard, "publishers", lambda _endpoint, _port: found)


def test_port_of_another_process_is_refused(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    published_by(monkeypatch)

    with pytest.raises(pulumi.RunError) as problem:
        check(settings({"httpPort": taken}))

    said = re.fullmatch(
        rf"dify:httpPort: {taken} on 127\.0\.0\.1 cannot be used: Address already in use; stop what uses it, or choose "
        r"another port; (\d+) is free: `.*dify-kit set httpPort (\d+) --stack unit`",
        str(problem.value),
    )
    assert said is not None, problem.value
    assert said[1] == said[2]
    check(settings({"httpPort": int(said[1])}))


@pytest.mark.parametrize(("port", "own", "free"), [(443, (), 8443), (80, (), 8080), (9000, (9001,), 9002)])
def test_a_free_port_is_the_next_one_that_nothing_has(
    monkeypatch: pytest.MonkeyPatch, port: int, own: tuple[int, ...], free: int
) -> None:
    monkeypatch.setattr(port_guard, "_taken", lambda *_: "")
    published_by(monkeypatch)
    view = checks.EngineView(engine.chosen())

    assert port_guard.free_port(view, ("127.0.0.1",), port, own) == free


def test_ports_of_containers_and_of_processes_are_not_free(
    monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    def publishers(_endpoint: object, port: int) -> list[Publisher]:
        return [Publisher(container="web", addresses=("127.0.0.1",))] if port == taken + 1 else []

    monkeypatch.setattr(port_guard, "publishers", publishers)

    found = port_guard.free_port(checks.EngineView(engine.chosen()), ("127.0.0.1",), taken)

    assert found is not None
    assert found > taken + 1


def test_without_a_free_port_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    published_by(monkeypatch, somebody=("127.0.0.1",))

    with pytest.raises(pulumi.RunError, match=r"another port: `.*dify-kit set httpPort --stack unit`"):
        check(settings({"httpPort": 8123}))


def test_port_of_another_container_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    published_by(monkeypatch, somebody=("0.0.0.0",))  # noqa: S104

    with pytest.raises(pulumi.RunError, match="dify:httpPort: 8123 is published by container somebody; stop"):
        check(settings({"httpPort": 8123}))


def test_port_of_another_container_on_another_address_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    published_by(monkeypatch, somebody=("127.0.0.9",))

    check(settings({"httpPort": 8123}))


def test_port_of_our_own_edge_is_ours(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    published_by(monkeypatch, dify_unit_nginx=("127.0.0.1",))

    check(settings({"httpPort": taken}))


@pytest.mark.parametrize("address", FOREIGN)
@pytest.mark.parametrize("running", [(), ("127.0.0.1",)], ids=["new", "running"])
def test_address_that_this_machine_lacks_is_refused_also_while_the_edge_runs(
    monkeypatch: pytest.MonkeyPatch, address: str, running: tuple[str, ...]
) -> None:
    published_by(monkeypatch, **({"dify_unit_nginx": running} if running else {}))

    with pytest.raises(pulumi.RunError) as problem:
        check(settings({"bindAddress": address, "httpPort": 8123}))

    assert str(problem.value).startswith(f"dify:bindAddress: {address} ")
    assert str(problem.value).endswith("`dify-kit set bindAddress --stack unit`")


def test_wider_address_is_refused_where_another_process_has_a_part_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as edge, socket.socket() as other:
        edge.bind(("127.0.0.1", 0))
        edge.listen()
        port = int(edge.getsockname()[1])
        published_by(monkeypatch, dify_unit_nginx=("127.0.0.1",))
        # Only the edge listens: what it holds is free to it, and the rest is free anyway.
        check(settings({"bindAddress": "0.0.0.0", "httpPort": port}))  # noqa: S104
        other.bind(("127.0.0.8", port))
        other.listen()

        with pytest.raises(pulumi.RunError, match=rf"{port} on 0\.0\.0\.0 cannot be used: Address already"):
            check(settings({"bindAddress": "0.0.0.0", "httpPort": port}))  # noqa: S104


def test_both_families_are_published_and_both_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert addresses_of("*") == ("0.0.0.0", "::")  # noqa: S104
    if not socket.has_ipv6 or port_guard.address_problem("::1"):
        return
    with socket.socket(socket.AF_INET6) as other:
        other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        other.bind(("::1", 0))
        other.listen()
        port = int(other.getsockname()[1])
        published_by(monkeypatch)

        with pytest.raises(pulumi.RunError, match=rf"{port} on :: cannot be used"):
            check(settings({"bindAddress": "*", "httpPort": port}))
        check(settings({"bindAddress": "0.0.0.0", "httpPort": port}))  # noqa: S104


def test_free_port_is_fine(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    published_by(monkeypatch)

    # The same port of another address is another one.
    check(settings({"httpPort": taken, "bindAddress": "127.0.0.2"}))


def test_ports_and_addresses_of_this_machine_say_nothing_about_a_remote_engine(
    monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    published_by(monkeypatch)
    monkeypatch.setenv("DOCKER_HOST", "ssh://operator@far.example")

    check(settings({"httpPort": taken, "bindAddress": FOREIGN[0]}))


def test_engine_that_is_away_is_left_to_the_provider(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")

    assert port_guard.publishers(engine.chosen(), taken) is None
    check(settings({"httpPort": taken}))


def test_engine_of_a_context_is_refused_where_the_provider_would_take_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    published_by(monkeypatch)
    context(tmp_path, "far", "tcp://127.0.0.1:1")
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": "far"}))

    with pytest.raises(pulumi.RunError) as problem:
        check(settings())

    assert "tcp://127.0.0.1:1 (docker's current context far)" in str(problem.value)
    assert 'eval "$(dify-kit env --stack unit)"' in str(problem.value)
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    check(settings())


def context(configuration: Path, name: str, address: str) -> None:
    """Write a context as `docker context create` does."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    folder = configuration / "contexts" / "meta" / digest
    folder.mkdir(parents=True)
    meta = {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": address, "SkipTLSVerify": False}}}
    (folder / "meta.json").write_text(json.dumps(meta))


def test_publishers_are_read_from_the_list_of_containers() -> None:
    def port(public: int, ip: str, kind: str = "tcp") -> dict[str, object]:
        return {"PrivatePort": 80, "PublicPort": public, "IP": ip, "Type": kind}

    listed: list[dict[str, Any]] = [
        {"Names": ["/web"], "Ports": [port(80, "0.0.0.0"), port(80, "::"), port(81, "127.0.0.1")]},  # noqa: S104
        {"Names": ["/dns"], "Ports": [port(80, "0.0.0.0", "udp")]},  # noqa: S104
        {"Names": ["/none"], "Ports": None},
    ]

    assert published(listed, 80) == [Publisher(container="web", addresses=("0.0.0.0", "::"))]  # noqa: S104


def test_kernel_says_who_listens_and_which_addresses_there_are(taken: int) -> None:
    assert host_addresses.listeners(taken) == {ipaddress.ip_address("127.0.0.1")}
    assert ipaddress.ip_address("127.0.0.1") in {one.ip for one in host_addresses.own_addresses()}


def test_only_public_addresses_of_a_machine_come_on_top_of_the_lists() -> None:
    own = [
        ipaddress.ip_interface(one)
        for one in (
            "127.0.0.1/32",
            "172.17.0.1/32",
            "8.8.4.4/32",
            "2a01:4f8:1:2::5/64",
            "2a01:4f8:1:2:abcd::6/64",
            "fe80::1/64",
        )
    ]

    assert host_addresses.public_networks(own) == ("2a01:4f8:1:2::/64", "8.8.4.4/32")
