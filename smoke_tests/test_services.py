"""The containers of the stack: running, healthy, closed, and kept apart."""

import json
import time
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

from infra.published_defaults import PUBLISHED_DEFAULTS
from smoke_tests.target import Target

pytestmark = pytest.mark.needs_stack

HEALTHY_WITHIN_SECONDS = 75.0
NGINX_CONFIG = "/etc/dify-kit/nginx/nginx.conf"


# Every release has these; what else there is, the exports say.
SERVICES = (
    "api",
    "worker",
    "worker_beat",
    "web",
    "db_postgres",
    "redis",
    "sandbox",
    "plugin_daemon",
    "ssrf_proxy",
    "nginx",
)


@pytest.fixture(scope="session")
def engine() -> Host:
    """Lend the machine whose `docker` reaches the stack's engine."""
    return testinfra.get_host("local://")


def inspect(engine: Host, container: str) -> dict[str, Any]:
    """Return what the engine says about a container."""
    return dict(engine.docker(container).inspect())


def all_containers(target: Target) -> dict[str, str]:
    """Return every long-running container of the stack."""
    return dict(target.exports["containers"])


def test_every_container_is_healthy(engine: Host, target: Target) -> None:
    deadline = time.monotonic() + HEALTHY_WITHIN_SECONDS
    waiting = all_containers(target)
    seen: dict[str, str] = {}
    while waiting and time.monotonic() < deadline:
        for service, container in list(waiting.items()):
            state = inspect(engine, container)["State"]
            seen[service] = state.get("Health", {}).get("Status", state["Status"])
            if seen[service] in {"healthy", "exited", "dead", "unhealthy", "created"}:
                del waiting[service]
        if waiting:
            time.sleep(1)

    assert {service: status for service, status in seen.items() if status != "healthy"} == {}


@pytest.mark.parametrize("service", SERVICES)
def test_service_is_part_of_the_stack(target: Target, service: str) -> None:
    assert service in all_containers(target)


def test_jobs_ended_well(engine: Host, target: Target) -> None:
    codes = {
        job: inspect(engine, container)["State"]["ExitCode"]
        for job, container in target.exports["jobs"].items()
    }

    assert codes
    assert set(codes.values()) == {0}


def test_only_the_edge_publishes_ports(engine: Host, target: Target) -> None:
    published = {
        service: {binding["HostIp"] for bindings in ports.values() for binding in bindings or []}
        for service, container in all_containers(target).items()
        if (ports := inspect(engine, container)["HostConfig"]["PortBindings"] or {})
    }

    assert published == {target.exports["edge"]: {target.exports["bindAddress"]}}


def test_no_container_has_more_rights_than_it_needs(engine: Host, target: Target) -> None:
    for service, container in all_containers(target).items():
        config = inspect(engine, container)["HostConfig"]
        assert not config["Privileged"], service
        assert any(option.startswith("no-new-privileges") for option in config["SecurityOpt"] or []), service
        assert config["NetworkMode"] != "host", service
        assert not [bind for bind in config["Binds"] or [] if "docker.sock" in bind], service
        assert config["Memory"] > 0, service


def test_nginx_accepts_the_configuration_it_runs(engine: Host, target: Target) -> None:
    container = all_containers(target)["nginx"]

    checked = engine.run("docker exec %s nginx -e stderr -t -c %s", container, NGINX_CONFIG)

    assert checked.rc == 0, checked.stderr


@pytest.mark.parametrize("port", [5432, 6379])
def test_sandbox_does_not_reach_the_data(engine: Host, target: Target, port: int) -> None:
    service = {5432: "db_postgres", 6379: "redis"}[port]
    containers = all_containers(target)
    networks = inspect(engine, containers[service])["NetworkSettings"]["Networks"]
    address = next(iter(networks.values()))["IPAddress"]
    reach = f"import socket; socket.create_connection(('{address}', {port}), 2).close()"

    from_api = engine.run("docker exec %s python3 -c %s", containers["api"], reach)
    from_sandbox = engine.run("docker exec %s python3 -c %s", containers["sandbox"], reach)

    assert from_api.rc == 0, from_api.stderr
    assert from_sandbox.rc != 0


def test_edge_is_not_on_the_data_network(engine: Host, target: Target) -> None:
    edge = set(inspect(engine, all_containers(target)["nginx"])["NetworkSettings"]["Networks"])
    data = set(inspect(engine, all_containers(target)["db_postgres"])["NetworkSettings"]["Networks"])

    assert edge & data == set()


def test_no_container_runs_with_a_published_secret(engine: Host, target: Target) -> None:
    for service, container in all_containers(target).items():
        environment = json.dumps(inspect(engine, container)["Config"]["Env"])
        assert not [default for default in PUBLISHED_DEFAULTS if default in environment], service
