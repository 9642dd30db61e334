"""The tests that inspect containers detect what is wrong there, shown with made-up containers."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from infra.catalogue.published_defaults import PUBLISHED_DEFAULTS
from smoke_tests.conftest import MARKERS
from smoke_tests.engine import EVERYWHERE, Container, Publication, _container
from smoke_tests.exports import TargetError
from smoke_tests.limits import RateLimits
from smoke_tests.target import Deployment

SECRET = "kP3vXq8LmZ2w"
DEPLOYMENT = Deployment(
    stack="dev",
    release="1.17.1",
    stand_in=True,
    containers={"api": "dify-dev-api", "nginx": "dify-dev-nginx", "sandbox": "dify-dev-sandbox"},
    jobs={"migration": "dify-dev-migration"},
    edge="nginx",
    bind_address="127.0.0.1",
    http_port=8080,
    max_upload_megabytes=15,
    callbacks={},
    rate_limits=RateLimits(dry_run=False, groups={}),
)
EDGE = (Publication(address="127.0.0.1", port=8080, inside="8080/tcp"),)
GOOD = Container(
    name="dify-dev-api",
    service="api",
    status="running",
    health="healthy",
    exit_code=0,
    said="",
    published=(),
    privileged=False,
    memory_limit=1024,
    pids_limit=512,
    security_options=("no-new-privileges:true",),
    host_namespaces=(),
    mounts=("/var/lib/docker/volumes/dify-dev-app_storage/_data",),
    networks={"dify-dev-app": "172.18.0.2"},
    health_command=("true",),
    environment={"SECRET_KEY": SECRET, "LOG_LEVEL": "INFO"},
    raw="{}",
)


def containers(**changes: Mapping[str, Any]) -> dict[str, Container]:
    """Return a right stack in which some containers differ: service=fields."""
    base = {
        "api": GOOD,
        "nginx": dataclasses.replace(
            GOOD, name="dify-dev-nginx", service="nginx", published=EDGE, environment={}
        ),
        "sandbox": dataclasses.replace(GOOD, name="dify-dev-sandbox", service="sandbox"),
        "migration": dataclasses.replace(
            GOOD, name="dify-dev-migration", service="migration", status="exited"
        ),
    }
    for service, fields in changes.items():
        base[service] = dataclasses.replace(base.get(service, GOOD), **fields)
    return base


class PaperEngine:
    """Answers from given containers; `opened` is what the probe sees open, `internal` networks have no way out."""

    def __init__(
        self, found: Mapping[str, Container], opened: str = "", internal: frozenset[str] = frozenset()
    ) -> None:
        self._found, self._opened, self._internal = found, opened, internal

    def settled(self, name: str) -> Container:
        return next(container for container in self._found.values() if container.name == name)

    def internal(self, network: str) -> bool:
        return network in self._internal

    def run(self, _name: str, command: list[str]) -> tuple[int, str]:
        return (0, "/usr/bin/bash") if command[0] == "sh" else (0, self._opened)


@pytest.fixture(scope="module", autouse=True)
def _markers(pytestconfig: pytest.Config) -> None:
    # Smoke tests name markers that only their own run knows.
    for marker in MARKERS:
        pytestconfig.addinivalue_line("markers", marker)


@pytest.fixture(scope="module")
def exposure(_markers: None) -> Any:  # a module
    return importlib.import_module("smoke_tests.test_exposure")


@pytest.fixture(scope="module")
def services(_markers: None) -> Any:  # a module
    return importlib.import_module("smoke_tests.test_services")


Check = Callable[[dict[str, Container]], list[str]]


@pytest.fixture
def every_check(exposure: Any, services: Any) -> Check:  # modules
    """Lend what runs all checks on containers and returns the names of those that fail."""
    return lambda found: failed_checks(exposure, services, found)


def failed_checks(exposure: Any, services: Any, found: dict[str, Container]) -> list[str]:  # modules
    engine: Any = PaperEngine(found)
    checks: dict[str, Callable[[], None]] = {
        "belong": lambda: exposure.test_only_exported_containers_belong_to_the_stack(found, DEPLOYMENT),
        "ports": lambda: exposure.test_only_the_edge_publishes_ports(found, DEPLOYMENT),
        "address": lambda: exposure.test_the_edge_listens_on_its_address_and_port_only(found, DEPLOYMENT),
        "box": lambda: exposure.test_no_container_has_host_access(found),
        "memory": lambda: exposure.test_every_container_has_a_memory_limit(found),
        "processes": lambda: exposure.test_every_container_has_a_limit_of_processes(found),
        "defaults": lambda: exposure.test_no_published_default_secret_is_in_use(found),
        "edge-secrets": lambda: exposure.test_the_edge_holds_no_secret(found, DEPLOYMENT),
        "healthy": lambda: services.test_the_container_runs_and_is_healthy(engine, DEPLOYMENT, "api"),
        "job": lambda: services.test_the_job_succeeded(engine, DEPLOYMENT, "migration"),
    }
    failed = []
    for name, check in checks.items():
        try:
            check()
        except AssertionError as problem:
            failed.append(name if SECRET not in str(problem) else f"{name} shows a secret")
    return failed


def test_a_right_stack_passes(every_check: Check) -> None:
    assert every_check(containers()) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"stray": {"name": "dify-dev-stray", "service": "stray"}}, ["belong"]),
        ({"api": {"published": EDGE}}, ["ports"]),
        ({"nginx": {"published": ()}}, ["ports", "address"]),
        ({"nginx": {"published": (dataclasses.replace(EDGE[0], address=EVERYWHERE),)}}, ["address"]),
        ({"nginx": {"published": (*EDGE, dataclasses.replace(EDGE[0], port=8443))}}, ["address"]),
        ({"api": {"privileged": True}}, ["box"]),
        ({"api": {"security_options": ()}}, ["box"]),
        ({"api": {"host_namespaces": ("Pid",)}}, ["box"]),
        ({"api": {"mounts": ("/var/run/docker.sock",)}}, ["box"]),
        ({"api": {"memory_limit": 0}}, ["memory"]),
        ({"api": {"pids_limit": 0}}, ["processes"]),
        ({"api": {"environment": {"DB_PASSWORD": "difyai123456"}}}, ["defaults"]),
        ({"api": {"environment": {"CELERY_BROKER_URL": "redis://:difyai123456@redis:6379/1"}}}, ["defaults"]),
        ({"migration": {"environment": {"API_KEY": "dify-sandbox"}}}, ["defaults"]),
        ({"nginx": {"raw": f'{{"Cmd": "{SECRET}"}}'}}, ["edge-secrets"]),
        ({"api": {"health": "unhealthy"}}, ["healthy"]),
        ({"api": {"health": ""}}, ["healthy"]),
        ({"api": {"status": "exited"}}, ["healthy"]),
        ({"api": {"status": "restarting", "health": "starting"}}, ["healthy"]),
        ({"migration": {"exit_code": 1}}, ["job"]),
        ({"migration": {"status": "running"}}, ["job"]),
    ],
)
def test_what_is_wrong_is_noticed(
    every_check: Check, changes: Mapping[str, Mapping[str, Any]], expected: list[str]
) -> None:
    assert every_check(containers(**changes)) == expected


@pytest.mark.parametrize("default", sorted(PUBLISHED_DEFAULTS))
def test_every_published_default_is_noticed(every_check: Check, default: str) -> None:
    assert "defaults" in every_check(containers(api={"environment": {"ANY_NAME": default}}))


def test_a_name_that_contains_a_default_is_none(every_check: Check) -> None:
    environment = {"HOST": "http://dify-sandbox:8194", "SECRET_KEY": f"{SECRET}difyai123456"}

    assert every_check(containers(api={"environment": environment})) == []


DATA = {"db-postgres 5432", "172.19.0.2 5432", "redis 6379", "172.19.0.3 6379"}


@pytest.mark.parametrize(
    ("opened", "message"),
    [
        pytest.param(["ssrf-proxy 3128"], "", id="closed"),
        pytest.param([], "does not reach", id="blind-probe"),
        pytest.param(["ssrf-proxy 3128", "172.19.0.3 6379"], "6379", id="redis-by-address"),
        pytest.param(["ssrf-proxy 3128", "db-postgres 5432"], "5432", id="database-by-name"),
    ],
)
def test_an_open_way_to_the_data_is_noticed(exposure: Any, opened: list[str], message: str) -> None:
    engine: Any = PaperEngine({}, opened="".join(f"open {target}\n" for target in opened))
    problems = []
    try:
        exposure.test_the_data_tier_is_out_of_reach(engine, containers(), DATA, "sandbox")
    except AssertionError as problem:
        problems.append(str(problem))

    assert bool(problems) == bool(message)
    assert message in " ".join(problems)


def test_a_sandbox_with_a_way_out_is_noticed(exposure: Any) -> None:
    jailed: Any = PaperEngine({}, internal=frozenset({"dify-dev-app"}))
    free: Any = PaperEngine({})

    exposure.test_code_leaves_the_sandbox_through_its_proxy_only(jailed, containers(), "sandbox")
    with pytest.raises(AssertionError):
        exposure.test_code_leaves_the_sandbox_through_its_proxy_only(free, containers(), "sandbox")


INSPECTED: dict[str, Any] = {
    "Name": "/dify-dev-nginx",
    "Config": {
        "Labels": {"dify-kit.stack": "dev", "dify-kit.service": "nginx"},
        "Env": ["PATH=/usr/bin", "URL=http://a?b=c", "EMPTY="],
    },
    "HostConfig": {
        "Privileged": False,
        "Memory": 134217728,
        "SecurityOpt": ["no-new-privileges:true"],
        "NetworkMode": "host",
        "PidMode": "",
        "PortBindings": {"9000/tcp": [{"HostIp": "", "HostPort": "9000"}]},
    },
    "State": {"Status": "running", "ExitCode": 0, "Health": {"Status": "starting"}},
    "NetworkSettings": {
        "Ports": {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}], "8443/tcp": None},
        "Networks": {"dify-dev-app": {"IPAddress": "172.18.0.9"}},
    },
    "Mounts": [{"Source": "/var/run/docker.sock"}],
}


def test_the_answer_of_the_engine_is_read() -> None:
    container = _container(INSPECTED)

    assert (container.name, container.service) == ("dify-dev-nginx", "nginx")
    assert container.environment == {"PATH": "/usr/bin", "URL": "http://a?b=c", "EMPTY": ""}
    # What is configured and what is running: a stopped container publishes again once it starts.
    assert {(one.address, one.port) for one in container.published} == {
        (EVERYWHERE, 9000),
        ("127.0.0.1", 8080),
    }
    assert container.host_namespaces == ("Network",)
    assert container.mounts == ("/var/run/docker.sock",)
    assert container.networks == {"dify-dev-app": "172.18.0.9"}
    assert container.starting


@pytest.mark.parametrize(
    ("test", "command"),
    [
        (["CMD", "curl", "-f", "x"], ("curl", "-f", "x")),
        (["CMD-SHELL", "a || b"], ("/bin/sh", "-c", "a || b")),
        (["NONE"], ()),
        ([], ()),
    ],
)
def test_the_health_command_is_read(test: list[str], command: tuple[str, ...]) -> None:
    inspected = INSPECTED | {"Config": INSPECTED["Config"] | {"Healthcheck": {"Test": test}}}

    assert _container(inspected).health_command == command


def test_an_engine_that_does_not_answer_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    from smoke_tests.engine import Engine  # noqa: PLC0415  # the only test that makes one

    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")

    with pytest.raises(TargetError, match=r"the Docker engine does not answer.*DOCKER_HOST"):
        Engine("dev")
