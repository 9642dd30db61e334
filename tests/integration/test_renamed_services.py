"""A stack of an earlier version, whose services have the names of Dify's compose file, and an update."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from dify_kit.setup.base_images import BASE
from support.ports import free_port
from tests.integration.programs import Program

PROGRAM = """
import json, os
from infra.catalogue.service import HealthCheck, Keep, Limits, Mount
from infra.platforms.docker import DockerPlatform
from infra.platforms.platform import VolumePolicy
from infra.services.spec import Port, ServiceSpec
from infra.tiers.services import ServiceTier

values = json.loads(os.environ["TEST_VALUES"])
database = values["database"]

class OneImage:
    def id_of(self, role):
        return role

def service(name, script, **more):
    return ServiceSpec(
        name=name, image=values["image"], networks=("data",), limits=Limits(memory=64),
        stop_signal="SIGKILL", stop_grace=1, ready_timeout=60, entrypoint=("sh", "-c"),
        command=(script + "; exec sleep 600",), **more,
    )

platform = DockerPlatform(values["stack"], OneImage(), VolumePolicy(keep=False))
platform.add_networks({"data": False})
services = [
    service(
        database, "test -e /data/made || cat /proc/sys/kernel/random/uuid > /data/made",
        mounts=(Mount(volume="postgres", path="/data"),),
        ports=(Port(internal=5432, external=values["port"], address="127.0.0.1"),),
        health=HealthCheck(command=("test", "-s", "/data/made"), interval=5, retries=2, start_period=1),
    ),
    service("api", "true", after=(database,), environment={"DB_HOST": database}),
]
ServiceTier("data", services, platform, volumes={"postgres": Keep.DATA})
"""


@dataclass(kw_only=True)
class DatabaseAndClient(Program):
    """The kit's own platform with a service that holds data and publishes a port, and one that needs it."""

    stack: str
    port: int
    database: str

    @property
    def source(self) -> str:
        """The text of the program."""
        return PROGRAM

    @property
    def values(self) -> dict[str, Any]:
        """What the program finds."""
        return {"stack": self.stack, "image": BASE, "port": self.port, "database": self.database}


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[DatabaseAndClient]:
    """A stack of an earlier version, removed at the end."""
    program = DatabaseAndClient(
        home=tmp_path / "program",
        stack=f"renamed{secrets.token_hex(4)}",
        port=free_port(),
        database="db_postgres",
    )
    client = docker.from_env()
    try:
        yield program
    finally:
        for container in client.containers.list(all=True, filters={"name": f"dify-{program.stack}-"}):
            container.remove(force=True, v=True)
        for network in client.networks.list(names=[f"dify-{program.stack}-data"]):
            network.remove()
        for volume in client.volumes.list(filters={"name": f"dify-{program.stack}-"}):
            volume.remove(force=True)
        client.close()


def test_up_carries_a_stack_of_an_earlier_version_over_with_its_data(stack: DatabaseAndClient) -> None:
    client = docker.from_env()

    def names() -> set[str]:
        found = client.containers.list(all=True, filters={"name": f"dify-{stack.stack}-"})
        return {str(one.name).removeprefix(f"dify-{stack.stack}-") for one in found}

    def made() -> object:
        container = client.containers.get(f"dify-{stack.stack}-{stack.database}")
        code, text = container.exec_run(["cat", "/data/made"])
        assert code == 0
        assert text
        return text

    stack.up()
    assert names() == {"db_postgres", "api"}
    before = made()

    stack.database = "db-postgres"
    planned = stack.steps()
    assert planned["db-postgres"] in {"replace", "create-replacement", "delete-replaced"}
    assert not {"db_postgres", "volume-postgres", "data"} & planned.keys()
    stack.up()

    assert names() == {"db-postgres", "api"}, (
        "the old container is gone, and its port is free for the new one"
    )
    assert made() == before
    api = client.containers.get(f"dify-{stack.stack}-api")
    for spelling in ("db-postgres", "db_postgres"):
        assert api.exec_run(["getent", "hosts", spelling]).exit_code == 0, spelling
    assert stack.steps() == {}
    client.close()
