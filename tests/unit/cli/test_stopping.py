"""What `down` stops before Pulumi removes it, and in which order."""

import threading
from dataclasses import dataclass, field

import pytest

from dify_kit.containers.docker_host import Container
from dify_kit.containers.stopping import rounds, stop
from dify_kit.errors import KitError
from tests.unit.cli.conftest import FakeEngine


def container(service: str, state: str = "running", *, job: bool = False) -> Container:
    return Container(id=f"{service}-id", name=f"dify-dev-{service}", service=service, job=job, state=state)


def names(groups: list[list[Container]]) -> list[list[str]]:
    return [sorted(one.service for one in group) for group in groups]


def test_the_edge_goes_first_and_what_deletes_keys_stays() -> None:
    services = ["api", "nginx", "worker", "redis", "db-postgres", "web", "certbot", "plugin-daemon"]

    assert names(rounds(container(one) for one in services)) == [
        ["certbot", "nginx"],
        ["plugin-daemon", "web", "worker"],
    ]


def test_what_does_not_run_is_left_alone() -> None:
    stopped = [
        container("web", "exited"),
        container("migration", "exited", job=True),
        container("nginx", "created"),
    ]

    assert rounds(stopped) == []


@dataclass
class Waiting(FakeEngine):
    """An engine whose containers stop only when `together` of them are being stopped."""

    together: threading.Barrier = field(default_factory=lambda: threading.Barrier(3, timeout=60))

    def stop_container(self, container_id: str) -> None:
        self.together.wait()
        super().stop_container(container_id)


def test_services_of_a_group_stop_at_the_same_time() -> None:
    engine = Waiting()

    stop(engine, [container(one) for one in ("web", "worker", "sandbox")], lambda _: None)

    assert sorted(engine.stopped) == ["sandbox-id", "web-id", "worker-id"]


@dataclass
class Refusing(FakeEngine):
    """An engine that cannot stop web."""

    def stop_container(self, container_id: str) -> None:
        if container_id == "web-id":
            raise KitError("cannot stop container web-id")
        super().stop_container(container_id)


def test_a_stop_that_fails_is_told() -> None:
    with pytest.raises(KitError, match="web-id"):
        stop(Refusing(), [container("web"), container("worker")], lambda _: None)
