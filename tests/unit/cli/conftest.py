"""A machine for the command line: its own home and checkout, a fake `pulumi` on PATH, a fake engine."""

import json
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from dify_kit.commands import down, init, up
from dify_kit.containers import docker_host
from dify_kit.containers.docker_host import Container, Engine, Network
from dify_kit.engine.cli import Pulumi
from dify_kit.workspace import files as stack_files
from dify_kit.workspace.files import StackFiles
from infra.catalogue.volumes import VOLUMES
from infra.guards.findings import Publisher
from infra.guards.volumes import STACK_LABEL
from infra.settings.secrets import SHAPES

FAKE = Path(__file__).with_name("fake_pulumi.py")


@dataclass
class FakeEngine(Engine):
    """An engine in memory; ``removed`` tells what was taken away, in order."""

    stack_containers: list[Container] = field(default_factory=list)
    stack_networks: list[Network] = field(default_factory=list)
    existing_volumes: set[str] = field(default_factory=set)
    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    # Containers of no stack, or of another one, with their labels.
    foreign: dict[str, dict[str, str]] = field(default_factory=dict)
    ports: dict[int, list[str]] = field(default_factory=dict)
    published_on: tuple[str, ...] = ("127.0.0.1",)
    # What the engine shows of a container, by its name, and the names of images by their ids.
    details: dict[str, dict[str, Any]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    registry_problem: str = ""
    existing_images: set[str] = field(default_factory=set)
    root: str = "/"
    is_local: bool = True
    removed: list[str] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)

    def local(self) -> bool:
        return self.is_local

    def data_root(self) -> str:
        return self.root

    def containers(self, stack: str) -> list[Container]:
        return [one for one in self.stack_containers if one.name.startswith(f"dify-{stack}-")]

    def inspected(self, stack: str) -> list[Mapping[str, Any]]:
        return [self.details[one.name] for one in self.containers(stack) if one.name in self.details]

    def image_names(self) -> Mapping[str, str]:
        return self.tags

    def networks(self, stack: str) -> list[Network]:
        return [one for one in self.stack_networks if one.name.startswith(f"dify-{stack}-")]

    def volumes(self, names: list[str]) -> list[str]:
        return [name for name in names if name in self.existing_volumes]

    def volume_labels(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        return {name: self.labels.get(name, made_by_its_stack(name)) for name in self.volumes(list(names))}

    def container_labels(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        return {name: self.foreign[name] for name in names if name in self.foreign}

    def publishers(self, port: int) -> list[Publisher]:
        return [Publisher(container=name, addresses=self.published_on) for name in self.ports.get(port, [])]

    def remove_container(self, container_id: str, *, stop: bool = False) -> None:
        self.removed.append(f"{'stop ' if stop else ''}{container_id}")
        self.stack_containers = [one for one in self.stack_containers if one.id != container_id]

    def stop_container(self, container_id: str) -> None:
        self.stopped.append(container_id)

    def pause(self, container: Container) -> None:
        self.stopped.append(container.id)

    def resume(self, container: Container) -> None:
        self.restarted.append(container.id)

    def restart_container(self, container_id: str) -> None:
        self.restarted.append(container_id)

    def remove_network(self, network_id: str) -> None:
        self.removed.append(network_id)
        self.stack_networks = [one for one in self.stack_networks if one.id != network_id]

    def remove_volume(self, name: str) -> None:
        self.removed.append(name)
        self.existing_volumes.discard(name)

    def images(self, names: list[str]) -> list[str]:
        return [name for name in names if name in self.existing_images]

    def image_ids(self, names: Sequence[str]) -> Mapping[str, str]:
        return {name: f"sha256:{name}" for name in self.images(list(names))}

    def can_reach_registry(self, image: str, deadline: float) -> str:
        assert image
        assert deadline > 0
        return self.registry_problem


def made_by_its_stack(volume: str) -> dict[str, str]:
    """Return the label of a volume `dify-<stack>-<name>` as its stack makes it."""
    [stack] = [volume[len("dify-") : -len(name) - 1] for name in VOLUMES if volume.endswith(f"-{name}")][:1]
    return {STACK_LABEL: stack}


@dataclass(kw_only=True)
class Machine:
    """Everything a command touches, in a temporary directory."""

    home: Path
    checkout: Path
    fake: Path
    engine: FakeEngine

    def files(self, stack: str = "dev") -> StackFiles:
        """Return the stack's files, links made."""
        return StackFiles.open(stack)

    def pulumi(self, stack: str = "dev") -> Pulumi:
        """Return Pulumi for a stack."""
        return Pulumi(files=self.files(stack))

    def calls(self, *words: str) -> list[dict[str, Any]]:
        """Return the calls of ``pulumi`` that begin with ``words``."""
        path = self.fake / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines]
        return [call for call in found if tuple(call["args"][: len(words)]) == words]

    def play(self, **scenes: Mapping[str, Any]) -> None:
        """Tell the fake what each verb does."""
        (self.fake / "scenes.json").write_text(json.dumps(scenes))

    def configure(self, stack: str = "dev", **settings: object) -> Path:
        """Write a stack's configuration as ``init`` would have. None leaves a setting out."""
        files = self.files(stack)
        config: dict[str, object] = {"dify:images": "local", "dify:vectorStore": "pgvector"}
        config["dify:adminEmail"] = "admin@example.com"
        config |= {f"dify:{key}": {"secure": "v1:x"} for key, shape in SHAPES.items() if shape.generate}
        config |= {f"dify:{key}": value for key, value in settings.items()}
        config = {key: value for key, value in config.items() if value is not None}
        files.data.ensure_passphrase()
        files.stored.write_text(yaml.safe_dump({"encryptionsalt": "v1:salt", "config": config}))
        files.link()
        return files.stored

    def state(
        self,
        stack: str = "dev",
        resources: list[dict[str, Any]] | None = None,
        pending: list[dict[str, Any]] | None = None,
    ) -> Path:
        """Write a stack's state file."""
        path = self.home / "state" / ".pulumi" / "stacks" / "dify" / f"{stack}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        latest = {"resources": resources or [], "pending_operations": pending or []}
        path.write_text(json.dumps({"version": 3, "checkpoint": {"stack": stack, "latest": latest}}))
        return path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Make a machine with a checkout, an installed engine and nothing deployed."""
    checkout, home, fake, programs = (tmp_path / name for name in ("checkout", "data", "fake", "bin"))
    for directory in (checkout, fake, programs):
        directory.mkdir()
    launcher = programs / "pulumi"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
    launcher.chmod(0o755)
    for name in (
        "PULUMI_BACKEND_URL",
        "PULUMI_CONFIG_PASSPHRASE",
        "PULUMI_CONFIG_PASSPHRASE_FILE",
        "DOCKER_HOST",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("DIFY_KIT_STACK", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("DIFY_KIT_HOME", str(home))
    monkeypatch.setenv("FAKE_PULUMI", str(fake))
    monkeypatch.setattr(stack_files, "CHECKOUT", checkout)

    setup = types.ModuleType("dify_kit.setup")
    path = f"{programs}:/usr/bin:/bin"
    setup.engine_env = lambda: {"PATH": path}  # type: ignore[attr-defined]
    setup.run_setup = lambda _images=None, **_options: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dify_kit.setup", setup)

    engine = FakeEngine()
    for module in (up, down, init, docker_host):
        monkeypatch.setattr(module, "DockerEngine", lambda: engine)
    return Machine(home=home, checkout=checkout, fake=fake, engine=engine)
