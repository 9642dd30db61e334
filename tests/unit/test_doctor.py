"""The doctor: what it finds on machines that are made up, and that it changes nothing."""

import datetime as dt
import json
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from dify_kit.checks import doctor, stack
from dify_kit.checks import machine as machine_checks
from dify_kit.checks.doctor import run_checks
from dify_kit.checks.machine import (
    EngineFacts,
    check_base_image,
    check_clock,
    check_disk,
    check_docker,
    check_memory,
    check_packages,
    check_pulumi,
)
from dify_kit.checks.result import GIB, Check, Status
from dify_kit.checks.stack import check_gate, check_pins, check_release, check_settings
from dify_kit.errors import KitError, UsageError
from dify_kit.setup.engine_build import PROGRAMS
from dify_kit.setup.pulumi_engine import docker_plugin
from dify_kit.workspace.files import DataDir, StackFiles
from infra.catalogue.releases import RELEASES
from infra.platforms.images import loaded_name
from infra.settings.secrets import SHAPES
from infra.settings.stack import Reading
from support import certificates
from tests.unit.cli.conftest import FakeEngine
from tests.unit.cluster_api import CONTEXT, Api, served
from tests.unit.gateway import provider as providers

NOON = dt.datetime(2026, 11, 24, 12, 0, tzinfo=dt.UTC)
FACTS = EngineFacts(
    address="unix:///var/run/docker.sock",
    chosen_by="docker's default",
    version="28.2.2",
    memory=16 * GIB,
    root=Path("/"),
    clock=NOON,
    has_base_image=True,
)
SECRETS = "".join(
    f"  dify:{key}: {{secure: 'v1:nonce:data'}}\n" for key, one in SHAPES.items() if one.generate
)
STACK_FILE = """\
encryptionsalt: v1:abc
config:
  dify:images: {images}
  dify:httpPort: "8080"
  dify:vectorStore: pgvector
  dify:adminEmail: admin@example.com
"""


@pytest.fixture
def files(tmp_path: Path) -> StackFiles:
    """Give the paths of a stack that does not exist."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    return StackFiles(stack="dev", data=DataDir(root=tmp_path / "data"), checkout=checkout)


def create(files: StackFiles, images: str = "local", mode: int = 0o600) -> None:
    files.data.stacks.mkdir(parents=True)
    files.stored.write_text(STACK_FILE.format(images=images) + SECRETS)
    files.stored.chmod(mode)
    files.data.passphrase.write_text("a passphrase")
    files.data.passphrase.chmod(0o600)


def reading_of(files: StackFiles) -> Reading | None:
    """Return the settings as the doctor reads them."""
    return check_settings(files, {})[0]


def snapshot(root: Path) -> dict[str, tuple[int, float]]:
    return {str(path): (path.lstat().st_mode, path.lstat().st_mtime) for path in root.rglob("*")}


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ("20.10.24+dfsg1", Status.OK),
        ("28.2.2", Status.OK),
        ("19.03.15", Status.FAILED),
        ("", Status.FAILED),
    ],
)
def test_old_engines_fail(version: str, status: Status) -> None:
    assert check_docker(replace(FACTS, version=version)).status is status


@pytest.mark.parametrize(
    ("gib", "images", "status"),
    [
        (5.0, "local", Status.WARNING),
        (5.7, "local", Status.OK),
        (5.7, "registry", Status.WARNING),
        (7.6, "registry", Status.OK),
        (5.7, None, Status.WARNING),
    ],
)
def test_memory_is_measured_by_what_will_run(gib: float, images: str | None, status: Status) -> None:
    check = check_memory(replace(FACTS, memory=int(gib * GIB)), images)

    assert check.status is status
    assert bool(check.hint) is (status is not Status.OK)


@pytest.mark.parametrize(("free", "status"), [(1, Status.FAILED), (5, Status.WARNING), (50, Status.OK)])
def test_disks(free: int, status: Status) -> None:
    assert check_disk("disk", Path("/data"), free * GIB).status is status


@pytest.mark.parametrize(
    ("now", "engine", "status"),
    [
        (NOON, NOON + dt.timedelta(seconds=1), Status.OK),
        (NOON, NOON + dt.timedelta(minutes=3), Status.WARNING),
        (NOON, NOON - dt.timedelta(minutes=3), Status.WARNING),
        (NOON, None, Status.OK),
        (dt.datetime(1970, 1, 1, tzinfo=dt.UTC), None, Status.FAILED),
    ],
)
def test_clocks(now: dt.datetime, engine: dt.datetime | None, status: Status) -> None:
    assert check_clock(now, engine).status is status


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-24T12:00:00.123456789Z", NOON.replace(microsecond=123456)),
        ("2026-11-24T13:00:00.5+01:00", NOON.replace(microsecond=500000)),
        ("2026-11-24T12:00:00Z", NOON),
        ("", None),
        ("soon", None),
    ],
)
def test_the_engines_clock_is_read(text: str, expected: dt.datetime | None) -> None:
    assert machine_checks.moment(text) == expected


LOCK = """\
rich==14.0.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via typer
typing_extensions==4.12.0 ; python_version >= '3.11'
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:cc
"""


@pytest.mark.parametrize(
    ("installed", "found"),
    [
        ({"rich": "14.0.0", "typing-extensions": "4.12.0", "extra": "1"}, "2 as locked"),
        ({"rich": "13.0.0", "typing-extensions": "4.12.0"}, "rich 13.0.0 (locked: 14.0.0)"),
        ({"rich": "14.0.0"}, "typing-extensions missing (locked: 4.12.0)"),
    ],
)
def test_packages_are_compared_with_the_lock(installed: dict[str, str], found: str) -> None:
    check = check_packages(LOCK, installed)

    assert check.found == found
    assert (check.status is Status.OK) is (found == "2 as locked")


def test_an_empty_lock_is_not_in_sync() -> None:
    assert check_packages("", {}).status is Status.FAILED


def put(directory: Path, *names: str) -> Mapping[str, str]:
    for name in names:
        (directory / name).touch()
        (directory / name).chmod(0o755)
    return {"PATH": str(directory)}


def test_a_complete_engine_tells_its_version(tmp_path: Path) -> None:
    environment = put(tmp_path, *PROGRAMS)

    check = check_pulumi(environment, lambda program, _env: f"3.259.0 of {Path(program).name}")

    assert check == Check(name="Pulumi engine", status=Status.OK, found=f"3.259.0 of pulumi in {tmp_path}")


@pytest.mark.parametrize("missing", PROGRAMS)
def test_every_part_of_the_engine_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "none"))
    environment = put(tmp_path, *(name for name in PROGRAMS if name != missing))

    check = check_pulumi(environment, lambda _program, _env: "3.259.0")

    assert check.status is Status.FAILED
    assert check.found == f"missing: {missing}"
    assert "make setup" in check.hint


def test_a_provider_that_pulumi_downloaded_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    plugin = docker_plugin()
    plugin.parent.mkdir(parents=True)
    plugin.touch()
    environment = put(tmp_path, *(name for name in PROGRAMS if name != "pulumi-resource-docker"))

    assert check_pulumi(environment, lambda _program, _env: "3.259.0").status is Status.OK


def test_an_engine_that_does_not_run_fails(tmp_path: Path) -> None:
    def crash(program: str, _environment: Mapping[str, str]) -> str:
        raise subprocess.CalledProcessError(139, [program])

    assert check_pulumi(put(tmp_path, *PROGRAMS), crash).status is Status.FAILED


@pytest.mark.parametrize(
    ("there", "images", "status"),
    [
        (True, "local", Status.OK),
        (False, "local", Status.FAILED),
        (False, "registry", Status.OK),
        (False, "mirror", Status.OK),
        (False, "preloaded", Status.OK),
        (False, None, Status.WARNING),
    ],
)
def test_only_local_stacks_depend_on_the_base_image(there: bool, images: str | None, status: Status) -> None:
    assert check_base_image(replace(FACTS, has_base_image=there), images).status is status


def test_a_stack_that_does_not_exist_is_no_failure(files: StackFiles) -> None:
    _, [check] = check_settings(files, {})

    assert check.status is Status.OK
    assert "not created yet" in check.found


def test_a_stack_in_order(files: StackFiles) -> None:
    create(files)

    reading, [check] = check_settings(files, {})

    assert check == Check(name="stack dev", status=Status.OK, found=f"21 settings in {files.stored}")
    assert reading is not None
    assert reading.problems == ()


def test_secrets_without_their_passphrase_fail(files: StackFiles) -> None:
    create(files)
    files.data.passphrase.unlink()

    _, [without] = check_settings(files, {})
    _, [elsewhere] = check_settings(files, {"PULUMI_CONFIG_PASSPHRASE_FILE": "/run/secrets/p"})

    assert (without.status, elsewhere.status) == (Status.FAILED, Status.OK)


def test_settings_that_others_can_read_are_a_warning(files: StackFiles) -> None:
    create(files, mode=0o644)

    _, [check] = check_settings(files, {})

    assert check.status is Status.WARNING
    assert check.hint == f"chmod 600 {files.stored}"


@pytest.mark.parametrize("content", [b"config: [unclosed", b"\xff\xfe\x00"])
def test_settings_that_cannot_be_read_fail(files: StackFiles, content: bytes) -> None:
    create(files)
    files.stored.write_bytes(content)

    reading, [check] = check_settings(files, {})

    assert (reading, check.status) == (None, Status.FAILED)


def test_a_certificate_that_ends_soon_is_a_warning(files: StackFiles) -> None:
    soon = dt.datetime.now(tz=dt.UTC) + dt.timedelta(days=5)
    chain = certificates.issue(["dify.example.com"], end=soon)
    create(files)
    # Stored as Pulumi does not: what counts here is the date.
    document = yaml.safe_load(files.stored.read_text())
    document["config"] |= {
        "dify:publicUrl": "https://dify.example.com",
        "dify:tls": {"mode": "files"},
        "dify:tlsCertificate": chain.pem,
        "dify:tlsKey": chain.key_pem,
    }
    files.stored.write_text(yaml.safe_dump(document))

    _, checks = check_settings(files, {})

    assert [one.status for one in checks] == [Status.OK, Status.FAILED, Status.WARNING]
    assert "dify:tlsKey: is stored in plain text" in checks[1].found
    assert "expires in" in checks[2].found


class Machine:
    """A machine whose engine answers, with one stack."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.environ = {"DIFY_KIT_HOME": str(root / "data"), "PATH": "/usr/bin:/bin"}
        self.pulumi = {"PATH": str(root / "engine")}
        (root / "engine").mkdir()
        (root / "checkout").mkdir()
        put(root / "engine", *PROGRAMS)
        now = dt.datetime.now(tz=dt.UTC)
        self.facts: EngineFacts | KitError = replace(FACTS, root=root, clock=now)
        monkeypatch.setattr(doctor, "CHECKOUT", root / "checkout")
        self.found = FakeEngine()
        monkeypatch.setattr(stack, "DockerEngine", lambda: self.found)
        # Whether a port of the machine that runs the tests is free does not matter here.
        monkeypatch.setattr("infra.guards.ports.bind_problem", lambda _address, _port: "")
        monkeypatch.setenv("DOCKER_HOST", "unix:///var/run/docker.sock")
        monkeypatch.setattr(machine_checks, "ask_version", lambda _program, _environment: "3.259.0")
        monkeypatch.setattr(stack, "check_published", lambda _files, **_: [])
        (root / "checkout" / "requirements.lock").write_text("")
        monkeypatch.setattr(
            machine_checks,
            "check_packages",
            lambda *_: Check(name="Python packages", status=Status.OK, found=""),
        )
        self.files = StackFiles(stack="dev", data=DataDir(root=root / "data"), checkout=root / "checkout")

    def engine(self) -> EngineFacts:
        if isinstance(self.facts, KitError):
            raise self.facts
        return self.facts

    def checks(self, stack: str = "dev") -> dict[str, Check]:
        found = run_checks(stack, environ=self.environ, engine=self.engine, environment=lambda: self.pulumi)
        return {check.name: check for check in found}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Give a machine on which everything is fine, and no stack exists."""
    return Machine(tmp_path, monkeypatch)


def test_looking_changes_nothing(machine: Machine) -> None:
    before = snapshot(machine.root)

    checks = machine.checks()

    assert len(checks) == 13
    assert all(check.status is not Status.FAILED for check in checks.values())
    assert snapshot(machine.root) == before


def test_a_release_with_known_vulnerabilities_is_a_warning_for_each(machine: Machine) -> None:
    create(machine.files, images="registry")
    with machine.files.stored.open("a") as settings:
        settings.write("  dify:release: 1.12.1\n")

    found = check_release(reading_of(machine.files))

    assert [check.status for check in found] == [Status.WARNING] * 4
    assert "CVE-2026-41950" in found[0].found
    assert "1.14.0 or newer" in found[0].found


def test_a_release_of_the_stacks_own_catalogue_is_the_one_that_is_looked_at(
    machine: Machine, tmp_path: Path
) -> None:
    text = (
        RELEASES["1.12.1"].file.read_text(encoding="utf-8").replace("version: 1.12.1", "version: 1.12.9", 1)
    )
    (tmp_path / "1.12.9.yaml").write_text(text, encoding="utf-8")
    create(machine.files, images="registry")
    with machine.files.stored.open("a") as settings:
        settings.write(f"  dify:release: 1.12.9\n  dify:catalogue: {tmp_path}\n")

    assert "CVE-2026-41950" in check_release(reading_of(machine.files))[0].found


def test_the_stacks_own_settings_decide_what_is_needed(machine: Machine) -> None:
    create(machine.files, images="registry")
    machine.facts = replace(machine.engine(), has_base_image=False, memory=int(5.8 * GIB))

    checks = machine.checks()

    assert checks["base image"].status is Status.OK
    assert checks["memory"].status is Status.WARNING


def test_images_of_a_preloaded_stack_are_looked_for(machine: Machine) -> None:
    assert "images" not in machine.checks()
    create(machine.files, images="preloaded")
    with machine.files.stored.open("a") as settings:
        settings.write("  dify:vectorStore: weaviate\n")
    release = next(iter(RELEASES.values()))
    machine.found.existing_images = {loaded_name(image) for image in release.images.values()}

    complete = machine.checks()["images"]
    machine.found.existing_images -= {loaded_name(release.images["web"])}
    without = machine.checks()["images"]

    assert complete.status is Status.OK
    assert without.status is Status.FAILED
    assert "1 image(s) are not in the engine" in without.found
    assert "langgenius/dify-web:" in without.found
    assert "images load" in without.hint


def test_images_that_are_taken_by_tag_are_a_warning(machine: Machine) -> None:
    create(machine.files, images="registry")
    assert check_pins(reading_of(machine.files)) == []
    with machine.files.stored.open("a") as settings:
        settings.write("  dify:imagePins: false\n")

    [check] = check_pins(reading_of(machine.files))

    assert check.status is Status.WARNING
    assert "dify:imagePins is false" in check.found


def test_without_an_engine_the_other_checks_are_still_made(machine: Machine) -> None:
    machine.facts = KitError("no answer at unix:///var/run/docker.sock", "run `make setup`")

    checks = machine.checks()

    assert checks["Docker engine"].status is Status.FAILED
    assert checks["Docker engine"].hint == "run `make setup`"
    assert {"Pulumi engine", "Python packages", "clock", "your disk", "stack dev"} <= set(checks)
    assert "memory" not in checks


def test_a_stack_on_a_cluster_is_checked_without_an_engine(machine: Machine) -> None:
    machine.facts = KitError("no answer at unix:///var/run/docker.sock", "run `make setup`")
    with served(machine.root) as kubeconfig:
        theirs = {"metadata": {"name": "dify-dev", "labels": {"dify-kit.stack": "another"}}}
        Api.answers["GET", "/api/v1/namespaces/dify-dev"] = (200, theirs)
        kubernetes = {"kubeconfig": str(kubeconfig), "context": CONTEXT, "registry": "preloaded"}
        config = {"dify:platform": "kubernetes", "dify:kubernetes": kubernetes}
        machine.files.stored.parent.mkdir(parents=True, exist_ok=True)
        machine.files.stored.write_text(yaml.safe_dump({"config": config}))

        checks = machine.checks()

    assert checks["cluster"].status is Status.FAILED
    assert "is not this stack's" in checks["cluster"].found


def test_a_remote_engines_disk_is_not_ours(machine: Machine) -> None:
    machine.facts = replace(machine.engine(), address="tcp://10.0.0.9:2376")

    assert "Docker's disk" not in machine.checks()


def test_a_taken_port_fails_with_its_reason_and_a_command_for_the_stack(machine: Machine) -> None:
    machine.found.ports = {8080: ["web"]}
    new = machine.checks()["port"]
    create(machine.files)
    there = machine.checks()["port"]

    assert (new.status, there.status) == (Status.FAILED, Status.FAILED)
    assert new.found == there.found == "dify:httpPort: 8080 is published by container web"
    assert new.hint.endswith("8081 is free: dify-kit init dev --http-port 8081")
    assert there.hint.endswith("dify-kit set httpPort 8081 --stack dev")


def test_a_port_that_is_none_fails(machine: Machine) -> None:
    create(machine.files)
    with machine.files.stored.open("a") as settings:
        settings.write("  dify:httpPort: eighty\n")

    checks = machine.checks()

    assert checks["settings"].status is Status.FAILED
    assert checks["settings"].found == (
        "dify:httpPort: 'eighty': not a whole number in range; use a number from 1 to 65535"
    )
    assert "port" not in checks


def test_an_impossible_stack_name_is_refused(machine: Machine) -> None:
    with pytest.raises(UsageError):
        machine.checks("../dev")


@pytest.mark.parametrize(("status", "code"), [(Status.OK, 0), (Status.WARNING, 0), (Status.FAILED, 1)])
def test_only_failures_make_the_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], status: Status, code: int
) -> None:
    found = [Check(name="memory", status=status, found="[3] GiB", hint="buy [more]")]
    monkeypatch.setattr(doctor, "run_checks", lambda _stack, **_: found)

    assert doctor.doctor("dev", json_output=True) == code

    said = capsys.readouterr()
    assert json.loads(said.out) == {
        "ok": code == 0,
        "stack": "dev",
        "checks": [{"name": "memory", "status": status.value, "found": "[3] GiB", "hint": "buy [more]"}],
    }
    assert said.err == ""


def test_the_table_shows_text_as_it_is_and_does_not_fold_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    path = "/a/long/path" * 12
    checks = [Check(name="disk", status=Status.FAILED, found=f"[red]{path}[/]", hint="see [docs]")]
    monkeypatch.setattr(doctor, "run_checks", lambda _stack, **_: checks)

    assert doctor.doctor("dev") == 1

    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["✗", "disk", f"[red]{path}[/]"]
    assert second.strip() == "hint: see [docs]"


def gate(files: StackFiles, settings: str) -> None:
    """Give the stack a gate."""
    create(files)
    secret = "  dify:oidcGateClientSecret: {secure: 'v1:nonce:data'}\n"
    files.stored.write_text(files.stored.read_text() + secret + f"  dify:oidcGate: {settings}\n")


def test_no_gate_is_nothing_to_look_at(files: StackFiles) -> None:
    assert check_gate(reading_of(files)) == []
    gate(files, "{enabled: false, issuer: 'http://127.0.0.1:9'}")
    assert check_gate(reading_of(files)) == []


def test_the_provider_of_a_gate_is_asked(files: StackFiles) -> None:
    with providers.running() as provider:
        gate(files, f"{{enabled: true, issuer: '{provider.url}', clientId: dify}}")
        (well,) = check_gate(reading_of(files))
        provider.document = {"token_endpoint": ""}
        (broken,) = check_gate(reading_of(files))
        provider.document = {"issuer": "https://another.example"}
        (foreign,) = check_gate(reading_of(files))
    (away,) = check_gate(reading_of(files))

    assert (well.status, well.found) == (Status.OK, f"people sign in at {provider.url}/authorize")
    assert [one.status for one in (broken, foreign, away)] == [Status.WARNING] * 3
    assert "has no usable token_endpoint" in broken.found
    assert "has another issuer" in foreign.found
    assert "ConnectError" in away.found


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("{enabled: true}", "dify:oidcGate.issuer: '': is empty"),
        ("'{\"enabled\": true}'", "dify:oidcGate.issuer: '': is empty"),
        (
            "{enabled: true, issuer: 'http://id.example', clientId: dify, caFile: /no/such.crt}",
            "dify:oidcGate.caFile: '/no/such.crt': is not a file with certificates in PEM",
        ),
    ],
)
def test_a_gate_that_cannot_work_fails(files: StackFiles, settings: str, told: str) -> None:
    gate(files, settings)

    reading, checks = check_settings(files, {})

    assert [one.status for one in checks] == [Status.OK, Status.FAILED]
    assert told in checks[1].found
    assert check_gate(reading) == []
