"""One list of checks: what one of the program, `up` and `doctor` refuses, all of them refuse, in the same words."""

import datetime as dt
import json
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml
from typer.testing import CliRunner

from dify_kit.__main__ import app
from dify_kit.checks import doctor, stack
from dify_kit.checks.machine import EngineFacts
from dify_kit.checks.result import GIB, Status
from dify_kit.containers.docker_host import Engine
from dify_kit.workspace import secrets as stack_secrets
from infra.catalogue.images import own_roles
from infra.catalogue.releases import RELEASES
from infra.catalogue.volumes import VOLUMES
from infra.guards import checks
from infra.guards.volumes import IMAGES_LABEL, STACK_LABEL, VECTOR_LABEL
from infra.platforms.images import loaded_name, local_name
from infra.settings.program import load
from support import certificates
from support.configuration import PLAIN, SECRETS
from tests.unit.cli.conftest import FakeEngine, Machine
from tests.unit.cli.test_settings_of_commands import PASSPHRASE, encrypt, words

PORT = "the free port"
TAKEN = "the port that something listens on"
# Documentation address (RFC 5737), which no machine has.
FOREIGN = "198.51.100.7"
TLS = {"publicUrl": "https://dify.example.com", "tls": {"mode": "files"}}
GOOD = certificates.issue(["dify.example.com"])
OTHER = certificates.issue(["dify.example.com"])
EXPIRED = certificates.issue(
    ["dify.example.com"],
    start=dt.datetime.now(dt.UTC) - dt.timedelta(days=9),
    end=dt.datetime.now(dt.UTC) - dt.timedelta(days=2),
)
PRELOADED: dict[str, Any] = {"images": "preloaded", "vectorStore": "weaviate"}
OAUTH: dict[str, Any] = {"oauth": {"enabled": True, "tenants": {"acme": {"app": "echo-chat"}}}}
RELEASE = next(iter(RELEASES.values()))
LOADED = {loaded_name(image) for image in RELEASE.images.values()} | {local_name(one) for one in own_roles()}


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A stack that cannot be deployed, and what has to be said. `config` has settings of other namespaces."""

    told: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, str | None] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, dict[str, str]] = field(default_factory=dict)
    containers: Mapping[str, dict[str, str]] = field(default_factory=dict)
    ports: Mapping[int, list[str]] = field(default_factory=dict)
    images: frozenset[str] = frozenset()
    environ: Mapping[str, str] = field(default_factory=dict)


def volume(name: str = "postgres", **changed: str) -> dict[str, dict[str, str]]:
    """Return a volume of the stack with labels of its own."""
    labels = {STACK_LABEL: "dev", IMAGES_LABEL: "local", VECTOR_LABEL: "pgvector"}
    return {f"dify-dev-{name}": {**labels, **changed}}


BROKEN: dict[str, Broken] = {
    "a number out of range": Broken(
        told="dify:apiWorkers: '0': not a whole number in range", settings={"apiWorkers": 0}
    ),
    "an unknown setting": Broken(told="dify:apiWorkrs: '2': no such setting", settings={"apiWorkrs": 2}),
    "an app without a file": Broken(
        told="dify:apps: 'nope': is not a file in apps/", settings={"apps": ["nope"]}
    ),
    "a secret that is missing": Broken(
        told="dify:postgresPassword: the secret is not set", secrets={"postgresPassword": None}
    ),
    "a secret that is too short": Broken(
        told="dify:adminPassword: has 5 characters", secrets={"adminPassword": "short"}
    ),
    "a secret that is published": Broken(
        told="dify:postgresPassword: is the value that upstream publishes",
        secrets={"postgresPassword": "difyai123456"},
    ),
    "an expired certificate": Broken(
        told="dify:tlsCertificate: the server's certificate expired on",
        settings=TLS,
        secrets={"tlsCertificate": EXPIRED.pem, "tlsKey": EXPIRED.key_pem},
    ),
    "the key of another certificate": Broken(
        told="dify:tlsKey: does not belong to the certificate",
        settings=TLS,
        secrets={"tlsCertificate": GOOD.pem, "tlsKey": OTHER.key_pem},
    ),
    "a certificate of another name": Broken(
        told="dify:tlsCertificate: does not cover other.example.com",
        settings={**TLS, "publicUrl": "https://other.example.com"},
        secrets={"tlsCertificate": GOOD.pem, "tlsKey": GOOD.key_pem},
    ),
    "no certificate": Broken(told="dify:tlsCertificate: the secret is not set", settings=TLS),
    "an upstream without its key": Broken(
        told="dify:llmKeys.holysheep: the key of holysheep is not set",
        settings={"llm": {"enabled": True}},
        secrets={"llmKeys": "{}"},
    ),
    "a volume without a label": Broken(
        told="volume dify-dev-postgres exists and is not this stack's: its label dify-kit.stack is missing",
        volumes={"dify-dev-postgres": {}},
    ),
    "a volume of another stack": Broken(
        told="volume dify-dev-postgres exists and is not this stack's: its label dify-kit.stack is dev-2",
        volumes=volume(**{STACK_LABEL: "dev-2"}),
    ),
    "volumes of another source of images": Broken(
        told="volume dify-dev-postgres was made with dify:images registry, and the settings say local",
        volumes=volume(**{IMAGES_LABEL: "registry"}),
    ),
    "volumes of another vector store": Broken(
        told="volume dify-dev-postgres was made with dify:vectorStore weaviate, and the settings say pgvector",
        volumes=volume(**{VECTOR_LABEL: "weaviate"}),
    ),
    "a container of another stack": Broken(
        told="container dify-dev-local-sandbox exists and is not this stack's: its label dify-kit.stack is dev-local",
        containers={"dify-dev-local-sandbox": {STACK_LABEL: "dev-local"}},
    ),
    "a port of another container": Broken(
        told="dify:httpPort: 8123 is published by container web",
        settings={"httpPort": 8123},
        ports={8123: ["web"]},
    ),
    "a port of another process": Broken(told="on 127.0.0.1 cannot be used", settings={"httpPort": TAKEN}),
    "a port of TLS of another container": Broken(
        told="dify:httpsPort: 8124 is published by container web",
        settings={"httpsPort": 8124, "tls": {"mode": "selfsigned"}, "publicUrl": "https://localhost:8124"},
        ports={8124: ["web"]},
    ),
    "an address of another machine": Broken(
        told=f"dify:bindAddress: {FOREIGN} Cannot assign requested address", settings={"bindAddress": FOREIGN}
    ),
    "images that are not loaded": Broken(
        told=f"- {loaded_name(RELEASE.images['web'])}",
        settings=PRELOADED,
        images=frozenset(LOADED - {loaded_name(RELEASE.images["web"])}),
    ),
    "the image of an optional part that is not loaded": Broken(
        told=f"- {local_name('gateway')}",
        settings={**PRELOADED, **OAUTH},
        images=frozenset(LOADED - {local_name("gateway")}),
    ),
    "an external database beside data of the stack's own": Broken(
        told="dify:database.host: db.example.com: the stack has a database of its own, in volume dify-dev-postgres",
        settings={"database": {"host": "db.example.com"}},
        secrets={"externalDatabasePassword": "twelve-letters"},
        volumes=volume(),
    ),
    "an external Redis that is not there": Broken(
        told="dify:redis.host: redis.invalid: port 6379 is unreachable from this machine",
        settings={"redis": {"host": "redis.invalid"}},
        secrets={"externalRedisPassword": "twelve-letters"},
    ),
    "an external vector store beside vectors of the stack's own": Broken(
        told="dify:vectorServer.host: vectors.example.com: the stack has vectors in a store of its own, in volume",
        settings={"vectorServer": {"host": "vectors.example.com", "user": "dify"}},
        secrets={"externalVectorPassword": "twelve-letters"},
        volumes=volume("vector"),
    ),
    "an engine of the provider's own": Broken(
        told="Pulumi's Docker provider would take tcp://10.9.9.9:2375",
        config={"docker:host": "tcp://10.9.9.9:2375"},
    ),
    "no address of an engine": Broken(
        told="DOCKER_HOST names 'nonsense', which is no address of a Docker engine",
        environ={"DOCKER_HOST": "nonsense"},
    ),
}
SOUND: dict[str, Broken] = {
    "a new stack": Broken(told=""),
    "a stack with data": Broken(told="", volumes=volume()),
    "a stack whose edge runs": Broken(told="", settings={"httpPort": 8125}, ports={8125: ["dify-dev-nginx"]}),
    "TLS by files": Broken(
        told="", settings=TLS, secrets={"tlsCertificate": GOOD.pem, "tlsKey": GOOD.key_pem}
    ),
    "loaded images": Broken(told="", settings={**PRELOADED, **OAUTH}, images=frozenset(LOADED)),
}


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of this machine on which something listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


@dataclass(kw_only=True)
class Stack:
    """A stack on a machine, as each of the three finds it. Each returns what it refuses; empty for nothing."""

    machine: Machine
    broken: Broken
    settings: Mapping[str, Any]

    def program(self) -> str:
        """Read and check as `infra/__main__.py` does."""
        secrets = {key: one for key, one in {**SECRETS, **self.broken.secrets}.items() if one is not None}
        values = {**PLAIN, **self.settings, **secrets}
        texts = {
            f"dify:{key}": one if isinstance(one, str) else json.dumps(one) for key, one in values.items()
        }
        pulumi.runtime.set_all_config(texts, [f"dify:{key}" for key in secrets])
        try:
            found = load(pulumi.Config("dify"), "dev")
            checks.check(found, found.dify, self.broken.config.get("docker:host", ""))
        except pulumi.RunError as refused:
            return words(str(refused))
        return ""

    def up(self, *options: str) -> str:
        """Run `dify-kit up`; it must not start Pulumi's `up` for what it refuses."""
        done = CliRunner().invoke(app, ["up", *options])
        started = bool(self.machine.calls("up"))
        assert started is (done.exit_code == 0), done.output
        return "" if started else words(done.stderr)

    def doctor(self) -> str:
        """Run the checks of `dify-kit doctor` and return those that failed, about the stack."""
        facts = EngineFacts(
            address="unix:///var/run/docker.sock",
            chosen_by="docker's default",
            version="28.2.2",
            memory=16 * GIB,
            root=Path("/"),
            clock=dt.datetime.now(tz=dt.UTC),
            has_base_image=True,
        )
        found = doctor.run_checks("dev", engine=lambda: facts, environment=lambda: {"PATH": ""})
        failed = [
            one
            for one in found
            if one.status is Status.FAILED
            and one.name not in {"Python packages", "Pulumi engine", "your disk"}
        ]
        return words(" ".join(one.found for one in failed))


def place(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, broken: Broken, ports: Mapping[str, int]
) -> Stack:
    """Put a stack on the machine, and let the program look at the same engine."""
    engine = machine.engine
    engine.existing_volumes, engine.labels = set(broken.volumes), dict(broken.volumes)
    engine.foreign = dict(broken.containers)
    engine.ports, engine.existing_images = dict(broken.ports), set(broken.images)
    settings = {"httpPort": PORT, **broken.settings}
    settings = {key: ports.get(one, one) if isinstance(one, str) else one for key, one in settings.items()}
    hidden = {key: one for key, one in broken.secrets.items() if one is not None}
    # A third of a second a file, with as many rounds as Pulumi makes.
    monkeypatch.setattr(stack_secrets, "ITERATIONS", 10)
    files = encrypt(machine, {**settings, **hidden}, set(hidden))
    document = yaml.safe_load(files.stored.read_text())
    for key in broken.secrets.keys() - hidden.keys():
        del document["config"][f"dify:{key}"]
    document["config"] |= broken.config
    files.stored.write_text(yaml.safe_dump(document))
    machine.state()
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", PASSPHRASE)
    for name, value in broken.environ.items():
        monkeypatch.setenv(name, value)
    look_at(monkeypatch, machine, engine)
    return Stack(machine=machine, broken=broken, settings=settings)


def look_at(monkeypatch: pytest.MonkeyPatch, machine: Machine, engine: Engine) -> None:
    monkeypatch.setattr("infra.guards.volumes.existing", engine.volume_labels)
    monkeypatch.setattr(
        "infra.guards.containers.existing", lambda _endpoint, names: engine.container_labels(names)
    )
    monkeypatch.setattr("infra.guards.ports.publishers", lambda _endpoint, port: engine.publishers(port))
    monkeypatch.setattr("infra.guards.images.ids", engine.image_ids)
    monkeypatch.setattr(stack, "DockerEngine", lambda: engine)
    monkeypatch.setattr(doctor, "CHECKOUT", machine.checkout)


@pytest.fixture
def ports(taken: int) -> dict[str, int]:
    """The numbers of the ports that a setting names by words."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return {PORT: int(probe.getsockname()[1]), TAKEN: taken}


@pytest.mark.parametrize("name", BROKEN)
def test_what_one_refuses_all_refuse_in_the_same_words(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, ports: dict[str, int], name: str
) -> None:
    broken = BROKEN[name]
    found = place(machine, monkeypatch, broken, ports)

    refused = {
        "program": found.program(),
        "doctor": found.doctor(),
        "up": found.up(),
        "up --skip-setup": found.up("--skip-setup"),
    }

    for who, text in refused.items():
        assert broken.told in text, who


@pytest.mark.parametrize("name", SOUND)
def test_what_one_accepts_all_accept(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, ports: dict[str, int], name: str
) -> None:
    found = place(machine, monkeypatch, SOUND[name], ports)

    assert {"program": found.program(), "doctor": found.doctor(), "up": found.up()} == {
        "program": "",
        "doctor": "",
        "up": "",
    }


def test_every_guard_is_in_the_matrix(machine: Machine) -> None:
    """A guard that is added to the list gets its broken stack here."""
    assert [guard.name for guard in checks.GUARDS] == [
        *(
            "engine choice",
            "volumes",
            "container names",
            "port",
            "database",
            "redis",
            "vector store",
            "images",
        )
    ]
    assert {"dify-dev-" + name for name in VOLUMES} >= {
        one for each in BROKEN.values() for one in each.volumes
    }
    assert isinstance(machine.engine, FakeEngine)


@pytest.mark.parametrize(
    ("leave", "told"),
    [
        ("volume", "volumes with data: dify-dev-postgres"),
        ("records", "volumes with data: dify-dev-llm_usage"),
        ("keys", "keys issued to callers"),
        ("state", "Pulumi's state, with 1 resource(s)"),
    ],
)
def test_what_an_earlier_stack_left_is_refused_by_doctor_up_and_init(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, leave: str, told: str
) -> None:
    look_at(monkeypatch, machine, machine.engine)
    files = machine.files()
    if leave in {"volume", "records"}:
        machine.engine.existing_volumes = {f"dify-dev-{'postgres' if leave == 'volume' else 'llm_usage'}"}
    if leave == "keys":
        (files.data.stacks / "proxy-keys.dev.json").write_text('{"version": 1, "keys": []}')
    if leave == "state":
        machine.state(resources=[{"urn": "urn:pulumi:dev::dify::t::x", "type": "t"}])
    found = Stack(machine=machine, broken=Broken(told=told), settings={})

    said = {"doctor": found.doctor(), "up": found.up(), "up --skip-setup": found.up("--skip-setup")}
    said["init"] = words(CliRunner().invoke(app, ["init", "dev", "--images", "local"]).stderr)

    for who, text in said.items():
        assert told in text, who
    assert "dify-kit forget dev" in said["init"]
    assert not files.configured()


def test_a_taken_port_is_answered_with_a_free_one_that_works(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, ports: dict[str, int]
) -> None:
    found = place(machine, monkeypatch, Broken(told="", settings={"httpPort": TAKEN}), ports)

    said = found.up()

    [free] = map(int, re.findall(r"dify-kit set httpPort (\d+) --stack dev", said.split("hint:")[1]))
    place(machine, monkeypatch, Broken(told="", settings={"httpPort": free}), ports)
    assert CliRunner().invoke(app, ["up"]).exit_code == 0
