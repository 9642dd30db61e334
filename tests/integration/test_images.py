"""Images against a real registry with TLS and login, and a real engine: pushed, copied, pulled, archived."""

import base64
import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from dify_kit.errors import KitError
from dify_kit.images import archive, copying
from dify_kit.images.wanted import ImageStore, Wanted
from dify_kit.setup.base_images import BASE
from support.ports import free_port
from support.stacks import RUN, unique, wait_until
from tests.integration.programs import Program

USER, PASSWORD = "operator", secrets.token_hex(12)
IMAGE = "dify-kit-test/registry:1"
# Debian's registry, and skopeo beside it: the tests need neither on the machine.
DOCKERFILE = f"""FROM {BASE}
RUN apt-get update && apt-get install -y --no-install-recommends docker-registry skopeo apache2-utils openssl \\
 && rm -rf /var/lib/apt/lists/*
"""
START = """set -e
mkdir -p /reg "/etc/containers/certs.d/localhost:$PORT" && cd /reg
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj "/CN=CA of a test" -days 2
openssl req -newkey rsa:2048 -nodes -keyout r.key -out r.csr -subj /CN=localhost
echo subjectAltName=DNS:localhost > ext
openssl x509 -req -in r.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out r.crt -days 2 -extfile ext
cp ca.crt "/etc/containers/certs.d/localhost:$PORT/ca.crt"
printenv PASSWORD | htpasswd -Bin "$ACCOUNT" > htpasswd
printenv PASSWORD | skopeo login --tls-verify=false --username "$ACCOUNT" --password-stdin "localhost:$PORT" || true
cat > config.yml <<END
version: 0.1
storage: {filesystem: {rootdirectory: /reg/data}}
http: {addr: ":$PORT", tls: {certificate: /reg/r.crt, key: /reg/r.key}}
auth: {htpasswd: {realm: test, path: /reg/htpasswd}}
END
exec docker-registry serve config.yml
"""
READY_SECONDS = 120


@dataclass(kw_only=True)
class Registry:
    """A registry at `localhost:port`, which the engine reaches, too; `programs` has a skopeo that trusts its CA."""

    host: str
    container: Any
    programs: Path
    client_config: Path

    def name(self, path: str) -> str:
        return f"{self.host}/{path}"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    client, port, home = docker.from_env(timeout=300), free_port(), tmp_path_factory.mktemp("registry")
    name = unique("registry")
    if not client.images.list(name=IMAGE):
        (home / "Dockerfile").write_text(DOCKERFILE)
        client.images.build(path=str(home), tag=IMAGE, rm=True)
    container = client.containers.run(
        IMAGE,
        ["bash", "-c", START],
        name=name,
        detach=True,
        environment={"PORT": str(port), "ACCOUNT": USER, "PASSWORD": PASSWORD},
        ports={f"{port}/tcp": ("127.0.0.1", port)},
    )
    try:
        host = f"localhost:{port}"
        auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        config = home / "docker"
        config.mkdir()
        (config / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
        programs = home / "bin"
        programs.mkdir()
        skopeo = programs / "skopeo"
        skopeo.write_text(f'#!/bin/sh\nexec docker exec {name} skopeo "$@"\n')
        skopeo.chmod(0o755)

        def logged_in() -> bool:
            command = ["skopeo", "login", "--username", USER, "--password-stdin", host]
            docker_exec = ["docker", "exec", "--interactive", name, *command]
            done = subprocess.run(docker_exec, input=PASSWORD, text=True, capture_output=True, check=False)
            return done.returncode == 0

        wait_until(logged_in, seconds=READY_SECONDS, what="a registry that takes a login")
        yield Registry(host=host, container=container, programs=programs, client_config=config)
    finally:
        container.remove(force=True, v=True)


@pytest.fixture
def logged_in(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Log in as an operator does, and find skopeo."""
    monkeypatch.setenv("DOCKER_CONFIG", str(registry.client_config))
    monkeypatch.setenv("PATH", f"{registry.programs}:{os.environ['PATH']}")
    return registry


@pytest.fixture
def small(tmp_path: Path) -> Iterator[str]:
    """An image of one file, with a name that nothing else has."""
    client, name = docker.from_env(), f"{RUN.rstrip('-')}-image/small:1"
    (tmp_path / "content").write_text(secrets.token_hex(8))
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY content /content\n")
    client.images.build(path=str(tmp_path), tag=name, rm=True)
    yield name
    for one in client.images.list(filters={"reference": f"*{name}"}):
        client.images.remove(str(one.id), force=True)


def wanted(name: str) -> Wanted:
    return Wanted(roles=("web",), reference=name, name=name, origin="the engine")


def pair(source: str, target: str) -> copying.Pair:
    return copying.Pair(wanted=wanted(source), source=source, target=target, digest=None)


@dataclass(kw_only=True)
class Pulling(Program):
    """A program that takes one image from a mirror, by the kit's own code."""

    mirror: str
    repository: str
    client_config: str

    @property
    def source(self) -> str:
        return """import json, os
from types import SimpleNamespace
import pulumi
from infra.catalogue.images import Image
from infra.platforms.images import Images

values = json.loads(os.environ["TEST_VALUES"])
settings = SimpleNamespace(images="mirror", mirror=values["mirror"], image_pins=False)
release = SimpleNamespace(images={"web": Image(repository=values["repository"], tag="1")})
pulumi.export("id", Images(settings, release, {}).id_of("web"))
"""

    @property
    def values(self) -> dict[str, Any]:
        return {"mirror": self.mirror, "repository": self.repository}

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"DOCKER_CONFIG": self.client_config}


def test_an_image_goes_to_a_registry_and_from_there_to_another_path_and_into_a_stack(
    logged_in: Registry, small: str, tmp_path: Path
) -> None:
    store, client = ImageStore(), docker.from_env()
    pushed, copied = logged_in.name(f"pushed/{small}"), logged_in.name(f"a/b/{small}")

    [push] = copying.push([pair(small, pushed)], store)
    skopeo = copying.find_tool()
    [first] = copying.copy([pair(pushed, copied)], skopeo)
    [second] = copying.copy([pair(pushed, copied)], skopeo)

    assert skopeo.program == "skopeo"
    assert (first.digest, first.result, second.result) == (push.digest, "copied", "there already")
    assert client.images.list(name=pushed) == []

    image_id = client.images.get(small).id
    client.images.remove(small)
    repository = small.rpartition(":")[0]
    mirror = logged_in.name("a/b")
    strangers = tmp_path / "nobody"
    strangers.mkdir()
    closed = Pulling(
        home=tmp_path / "closed", mirror=mirror, repository=repository, client_config=str(strangers)
    ).try_up()
    assert closed.code != 0
    # After the refusal the engine tries HTTP, which it may at this address: the words are those of the second try.
    assert "unable to pull image" in closed.output

    program = Pulling(
        home=tmp_path / "program",
        mirror=mirror,
        repository=repository,
        client_config=str(logged_in.client_config),
    )
    program.up()
    try:
        assert json.loads(program.pulumi("stack", "output", "--json").stdout) == {"id": image_id}
        assert program.up().keys() == {"same"}
        assert not [text for text in program.on_disk() if PASSWORD.encode() in text]
    finally:
        program.destroy()


def test_a_stranger_copies_nothing(
    registry: Registry, small: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", f"{registry.programs}:{os.environ['PATH']}")
    target = registry.name(f"stranger/{small}")

    with pytest.raises(KitError, match="cannot push"):
        copying.push([pair(small, target)], ImageStore())
    assert docker.from_env().images.list(name=target) == []


def test_an_archive_brings_an_image_back_under_its_name(small: str, tmp_path: Path) -> None:
    store, client, file = ImageStore(), docker.from_env(), tmp_path / "images.tar"
    present = store.find(small)
    assert present
    with file.open("wb") as out:
        archive.save([(wanted(small), present)], "1.17.1", store, out)
    client.images.remove(small)
    assert store.find(small) is None

    with archive.opened(str(file)) as opened:
        contents = archive.verify(opened)
        replaced = archive.load(opened, contents, store)

    assert replaced == []
    found = store.find(small)
    assert found
    assert found.id == present.id
    # What the kit wrote is an archive of Docker's own, too.
    client.images.remove(small)
    with file.open("rb") as opened:
        loaded = client.images.load(opened)
    assert [tag for one in loaded for tag in one.tags] == [small]
