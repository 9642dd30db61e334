"""The command line's view of a real engine: what it lists, what it removes, and what it leaves."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from dify_kit.containers.docker_host import JOB_LABEL, SERVICE_LABEL, STACK_LABEL, DockerEngine
from dify_kit.errors import KitError
from dify_kit.setup.base_images import BASE
from infra import engine
from infra.guards.findings import Publisher
from support.ports import free_port
from support.stacks import unique

IMAGE = BASE


@pytest.fixture
def name() -> Iterator[str]:
    """Give a stack name of our own; whatever carries it is removed."""
    client = docker.from_env()
    stack = unique("dh").removeprefix("dify-")
    yield stack
    for container in client.containers.list(all=True, filters={"label": f"{STACK_LABEL}={stack}"}):
        container.remove(force=True, v=True)
    for network in client.networks.list(filters={"label": f"{STACK_LABEL}={stack}"}):
        network.remove()
    for volume in client.volumes.list(filters={"name": f"dify-{stack}-"}):
        volume.remove(force=True)


def start(stack: str, service: str, command: str, *, job: bool = False, **more: Any) -> str:
    """Start a container of the stack; return its id."""
    labels = {STACK_LABEL: stack, SERVICE_LABEL: service} | ({JOB_LABEL: "true"} if job else {})
    container = docker.from_env().containers.run(
        IMAGE,
        ["sh", "-c", command],
        name=f"dify-{stack}-{service}",
        labels=labels,
        detach=True,
        **more,
    )
    return str(container.id)


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait up to 20 s for the condition."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.2)
    return False


def sickness(stack: str) -> dict[str, str]:
    """Return service -> what is wrong with it."""
    return {container.service: container.sick() for container in DockerEngine().containers(stack)}


def test_states_of_real_containers_are_judged(name: str) -> None:
    sick_check = {"test": ["CMD", "false"], "interval": 10**9, "timeout": 10**9, "retries": 1}
    start(name, "well", "sleep 60")
    start(name, "gone", "exit 7")
    start(name, "sick", "sleep 60", healthcheck=sick_check)
    start(name, "done", "exit 0", job=True)
    start(name, "failed", "exit 3", job=True)
    expected = {
        "well": "",
        "gone": "is exited with exit code 7",
        "sick": "is unhealthy",
        "done": "",
        "failed": "failed with exit code 3",
    }

    assert eventually(lambda: sickness(name) == expected), sickness(name)


def test_other_stacks_are_not_seen(name: str) -> None:
    start(name, "api", "sleep 60")

    assert DockerEngine().containers(f"{name}-2") == []
    assert DockerEngine().containers(name[:-1]) == []


def test_removal_stops_first_and_forgives_what_is_gone(name: str) -> None:
    volume = f"dify-{name}-postgres"
    trap = "trap 'echo stopped > /data/how; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
    identity = start(name, "db", trap, volumes={volume: {"bind": "/data"}})
    client = docker.from_env()
    assert eventually(lambda: b"ready" in client.containers.get(identity).logs())
    engine = DockerEngine()

    engine.remove_container(identity, stop=True)
    engine.remove_container(identity)

    output = client.containers.run(
        IMAGE, ["cat", "/data/how"], remove=True, volumes={volume: {"bind": "/data"}}
    )
    assert output == b"stopped\n"
    assert engine.containers(name) == []
    assert engine.volumes([volume, f"{volume}-2"]) == [volume]


def test_network_goes_with_whatever_hangs_on_it(name: str) -> None:
    client = docker.from_env()
    network = client.networks.create(f"dify-{name}-app", labels={STACK_LABEL: name})
    start(name, "api", "sleep 60", network=network.name)
    engine = DockerEngine()
    [found] = engine.networks(name)

    engine.remove_network(found.id)
    engine.remove_network(found.id)

    assert engine.networks(name) == []


def test_publisher_of_a_port_is_named(name: str) -> None:
    port = free_port()
    start(name, "web", "sleep 60", ports={"80/tcp": ("127.0.0.1", port)})

    assert DockerEngine().publishers(port) == [
        Publisher(container=f"dify-{name}-web", addresses=("127.0.0.1",))
    ]


def test_volume_in_use_is_an_error_that_names_it(name: str) -> None:
    volume = f"dify-{name}-redis"
    start(name, "redis", "sleep 60", volumes={volume: {"bind": "/data"}})

    with pytest.raises(KitError, match=volume):
        DockerEngine().remove_volume(volume)


def test_unreachable_engine_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")

    with pytest.raises(KitError, match=r"tcp://127\.0\.0\.1:1") as caught:
        DockerEngine()

    assert "DOCKER_HOST" in caught.value.hint


def test_registry_that_cannot_be_reached_is_reported_in_time() -> None:
    started = time.monotonic()

    problem = DockerEngine().can_reach_registry("registry.invalid/busybox:1", 15)

    assert problem
    assert time.monotonic() - started < 25


# Variables, the current context of docker's configuration.
CHOICES = {
    "nothing": ({}, ""),
    "current context": ({}, "first"),
    "context over current": ({"DOCKER_CONTEXT": "second"}, "first"),
    "host over both": ({"DOCKER_HOST": "tcp://192.0.2.3:2375", "DOCKER_CONTEXT": "second"}, "first"),
    "default by name": ({"DOCKER_CONTEXT": "default"}, "first"),
}


@pytest.mark.parametrize("case", CHOICES)
def test_engine_is_the_one_that_docker_chooses(tmp_path: Path, case: str) -> None:
    docker_command = shutil.which("docker") or "docker"
    variables, current = CHOICES[case]
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path)}
    for name in ("first", "second"):
        made = ["context", "create", name, "--docker", f"host=unix:///run/{name}.sock"]
        subprocess.run([docker_command, *made], env=environ, check=True, capture_output=True)
    if current:
        subprocess.run(
            [docker_command, "context", "use", current], env=environ, check=True, capture_output=True
        )
    environ |= variables

    done = subprocess.run(
        [docker_command, "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"],
        env=environ,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()

    assert engine.chosen(environ).address == done


def test_current_context_is_the_engine_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in engine.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    made = ["context", "create", "far", "--docker", "host=tcp://127.0.0.1:1"]
    subprocess.run([shutil.which("docker") or "docker", *made], check=True, capture_output=True)
    subprocess.run(
        [shutil.which("docker") or "docker", "context", "use", "far"], check=True, capture_output=True
    )

    with pytest.raises(KitError, match=r"tcp://127\.0\.0\.1:1 \(docker's current context far\)"):
        DockerEngine()


def test_engine_by_ssh_works_through_openssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What ssh would run there runs here: the way through it is the same.
    there = tmp_path / "ssh"
    there.write_text('#!/bin/sh\nfor last; do :; done\nunset DOCKER_HOST\nexec sh -c "$last"\n')
    there.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_HOST", "ssh://ops@far.example")

    found = DockerEngine()

    assert not found.local()
    assert found.data_root() == docker.DockerClient(base_url=engine.DEFAULT_ADDRESS).info()["DockerRootDir"]


def test_engine_by_ssh_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "ssh"
    there.write_text("#!/bin/sh\necho 'ops@far.example: Permission denied (publickey).' >&2\nexit 255\n")
    there.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_HOST", "ssh://ops@far.example")

    with pytest.raises(KitError, match=r"far\.example.*Permission denied \(publickey\)") as caught:
        DockerEngine()

    assert "docker version" in caught.value.hint
