"""The Docker engine and the base image: what is done on which machine. Programs are played by scripts."""

import getpass
import ipaddress
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dify_kit import setup
from dify_kit.errors import KitError
from dify_kit.setup import base_images, docker_engine
from dify_kit.setup.docker_engine import Answer, daemon_options, ensure_docker, last_words, version_numbers

DENIED = Answer(problem="('Connection aborted.', PermissionError(13, 'Permission denied'))")
SILENT = Answer(problem="('Connection aborted.', FileNotFoundError(2, 'No such file or directory'))")
READY = Answer(version="20.10.24+dfsg1")


class Machine:
    """A machine whose programs write down how they were called, and whose engine answers as told."""

    def __init__(self, root: Path) -> None:
        self.programs = root / "programs"
        self.programs.mkdir()
        self.calls_file = root / "calls"
        self.answers: Iterator[Answer] = iter(())
        self.last = SILENT

    def install(self, name: str, script: str = "") -> None:
        program = self.programs / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.calls_file}\n{script}\n')
        program.chmod(0o755)

    def answer(self, *answers: Answer) -> None:
        """Give these answers, one a question, and the last one from then on."""
        self.answers = iter(answers)

    def ask(self) -> Answer:
        self.last = next(self.answers, self.last)
        return self.last

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Give a Debian machine without Docker and without systemd, as root."""
    machine = Machine(tmp_path)
    for name in ("env", "setsid"):
        # They run what they are given, as the real ones do.
        machine.install(
            name, 'while [ $# -gt 0 ]; do case "$1" in -*|*=*) shift ;; *) break ;; esac; done; "$@"'
        )
    machine.install("apt-get")
    # Nothing else: the real apt-get must be out of reach.
    monkeypatch.setenv("PATH", str(machine.programs))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(docker_engine, "ask", machine.ask)
    monkeypatch.setattr(docker_engine, "_admin_path", lambda: str(machine.programs))
    monkeypatch.setattr(docker_engine, "_systemd", lambda: False)
    monkeypatch.setattr(docker_engine, "LOG", tmp_path / "dockerd.log")
    monkeypatch.setattr(docker_engine, "PID_FILE", tmp_path / "docker.pid")
    monkeypatch.setattr(docker_engine, "START_SECONDS", 1)
    return machine


def test_an_engine_that_answers_is_left_alone(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    machine.answer(READY)

    ensure_docker()

    assert machine.calls == []
    assert capfd.readouterr().err == "✓ Docker engine: 20.10.24+dfsg1 answers\n"


def test_an_engine_that_is_too_old_is_refused(machine: Machine) -> None:
    machine.answer(Answer(version="19.03.15"))

    with pytest.raises(KitError, match=r"19\.03\.15; the kit needs 20\.10"):
        ensure_docker()


def test_another_machines_engine_is_never_started(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.9:2375")

    with pytest.raises(KitError, match=r"tcp://10\.0\.0\.9:2375 \(DOCKER_HOST\) does not answer") as failed:
        ensure_docker()

    assert "unset DOCKER_HOST" in failed.value.hint
    assert machine.calls == []


def test_a_missing_engine_is_installed_and_started(machine: Machine) -> None:
    machine.install("docker")
    machine.install(
        "apt-get",
        f'case "$*" in *install*) printf "#!/bin/sh\\necho dockerd \\$* >>{machine.calls_file}\\n" '
        f">{machine.programs}/dockerd; /bin/chmod +x {machine.programs}/dockerd ;; esac",
    )
    machine.answer(SILENT, SILENT, SILENT, READY)

    ensure_docker()

    apt = [call.split()[-3:] for call in machine.calls if call.startswith("apt-get ")]
    assert apt[0][-1] == "update"
    assert apt[1][-2:] == ["docker.io", "iptables"]
    assert any(call.startswith("setsid --fork") for call in machine.calls)
    assert any(call.startswith("dockerd") for call in machine.calls)


def test_an_installation_without_the_engine_is_noticed(machine: Machine) -> None:
    machine.install("docker")

    with pytest.raises(KitError, match="there is no dockerd"):
        ensure_docker()


def test_no_apt_means_instructions_instead(machine: Machine) -> None:
    (machine.programs / "apt-get").unlink()

    with pytest.raises(KitError, match="neither Debian nor Ubuntu") as failed:
        ensure_docker()
    assert "DOCKER_HOST" in failed.value.hint


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("failed to start: iptables failed: iptables not found", "iptables"),
        ("mkdir /var/lib/docker/x: no space left on device", "free disk space"),
        ("failed to write oom_score_adj: permission denied", "is this a container"),
        ("something new", "its log is"),
    ],
)
def test_an_engine_that_does_not_come_up_shows_its_log(machine: Machine, words: str, advice: str) -> None:
    machine.install("dockerd", f'case "$*" in *--version*) echo 20.10 ;; *) echo "{words}" ;; esac')

    with pytest.raises(KitError, match="did not answer within 1 s") as failed:
        ensure_docker()

    assert words in failed.value.message
    assert advice in failed.value.hint


def test_an_engine_that_is_starting_up_is_waited_for(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.install("dockerd")
    monkeypatch.setattr(docker_engine, "_runs", lambda: True)
    docker_engine.PID_FILE.write_text("4711\n")
    machine.answer(SILENT, SILENT, READY)

    ensure_docker()

    assert machine.calls == []


def test_the_pid_file_of_a_dead_engine_is_not_believed(machine: Machine) -> None:
    assert not docker_engine._runs()
    docker_engine.PID_FILE.write_text(str(os.getpid()))
    assert not docker_engine._runs()
    assert machine.calls == []


def test_systemd_starts_it_where_there_is_one(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.install("dockerd")
    machine.install("systemctl")
    monkeypatch.setattr(docker_engine, "_systemd", lambda: True)
    machine.answer(SILENT, READY)

    ensure_docker()

    assert machine.calls == ["systemctl enable --now docker"]


def test_a_refused_user_is_let_in_and_no_second_engine_started(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # No dockerd in sight: the socket shows that an engine runs, so none may be installed.
    for name in ("usermod", "setfacl"):
        machine.install(name)
    machine.install("sudo", '"$@"')
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delenv("CI", raising=False)
    machine.answer(DENIED, READY)

    ensure_docker()

    user = getpass.getuser()
    assert [call for call in machine.calls if not call.startswith("sudo")] == [
        f"usermod --append --groups docker {user}",
        f"setfacl --modify user:{user}:rw {docker_engine.SOCKET}",
    ]
    assert f"adding {user} to group docker" in capfd.readouterr().err


def test_a_refused_user_without_sudo_gets_instructions(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    machine.answer(DENIED)

    with pytest.raises(KitError, match="sudo is not installed"):
        ensure_docker()
    assert machine.calls == []


@pytest.mark.parametrize(
    ("told", "may_lower", "expected"),
    [
        ("Docker version 20.10.24+dfsg1, build 297e128", False, ["--oom-score-adjust=0"]),
        ("Docker version 24.0.7, build 24.0.7-0ubuntu4", False, ["--oom-score-adjust=0"]),
        ("Docker version 26.1.5+dfsg1, build a72d7cd", False, []),
        ("Docker version 20.10.24+dfsg1, build 297e128", True, []),
    ],
)
def test_the_oom_option_goes_to_engines_that_need_and_know_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, told: str, may_lower: bool, expected: list[str]
) -> None:
    machine.install("dockerd", f"echo '{told}'")
    monkeypatch.setattr(docker_engine, "_may_lower_oom_score", lambda: may_lower)

    options = daemon_options(str(machine.programs / "dockerd"))
    assert [option for option in options if "oom" in option] == expected


@pytest.mark.parametrize(
    ("configuration", "asked"),
    [
        (None, True),
        ('{"log-driver": "local"}', True),
        # The engine takes them from one place only, and does not start otherwise.
        ('{"default-address-pools": [{"base": "10.9.0.0/16", "size": 24}]}', False),
    ],
)
def test_networks_are_small_where_nobody_chose_their_size(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, configuration: str | None, asked: bool
) -> None:
    machine.install("dockerd", "echo 'Docker version 28.2.2, build e6534b4'")
    monkeypatch.setattr(docker_engine, "CONFIGURATION", tmp_path / "daemon.json")
    if configuration is not None:
        (tmp_path / "daemon.json").write_text(configuration)

    pools = [option for option in daemon_options(str(machine.programs / "dockerd")) if "pool" in option]

    assert bool(pools) == asked
    for pool in pools:
        found = re.fullmatch(r"--default-address-pool=base=(?P<base>\S+),size=(?P<bits>\d+)", pool)
        assert found
        networks = list(ipaddress.ip_network(found["base"]).subnets(new_prefix=int(found["bits"])))
        assert len(networks) > 256


@pytest.mark.parametrize(
    ("text", "expected"),
    [("20.10.24+dfsg1", (20, 10)), ("Docker version 28.2.2, build e6534b4", (28, 2)), ("dev", ())],
)
def test_versions_are_read(text: str, expected: tuple[int, ...]) -> None:
    assert version_numbers(text) == expected


def test_last_words_are_few(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_words(log) == "  (no log)"
    log.write_text("".join(f"line {n}\n" for n in range(50)))
    assert last_words(log).splitlines()[-1] == "  line 49"
    assert len(last_words(log).splitlines()) == 10


class Registry:
    """Stands for the engine, as far as it asks a registry."""

    problem = ""

    def can_reach_registry(self, image: str, deadline: float) -> str:
        assert image == base_images.BASE
        assert deadline <= 15
        return self.problem


@pytest.fixture
def registry(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Give a registry that answers; an image is there once `docker pull` or `docker import` ran."""
    registry = Registry()
    machine.install("mmdebstrap", 'for last; do :; done; echo tar >"$last"')
    machine.install("docker")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(base_images, "DockerEngine", lambda: registry)
    monkeypatch.setattr(
        base_images,
        "has_base_image",
        lambda: any(call.startswith(("docker pull", "docker import")) for call in machine.calls),
    )
    return registry


@pytest.mark.usefixtures("registry")
def test_the_base_image_is_pulled_where_a_registry_answers(machine: Machine) -> None:
    base_images.ensure_base_images()

    assert machine.calls == [f"docker pull --quiet {base_images.BASE}"]


def test_the_base_image_is_made_where_none_does(
    machine: Machine, registry: Registry, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    registry.problem = "lookup of the registry failed"

    base_images.ensure_base_images()

    made, imported = machine.calls
    archive = made.split()[-1]
    assert made.split()[:2] == ["mmdebstrap", "--quiet"]
    assert imported.split()[-2:] == [archive, base_images.BASE]
    assert not Path(archive).exists()
    assert list((tmp_path / "cache/dify-kit").iterdir()) == []
    assert "lookup of the registry failed" in capfd.readouterr().err


def test_without_mmdebstrap_and_apt_there_are_other_ways(machine: Machine, registry: Registry) -> None:
    registry.problem = "no route"
    (machine.programs / "mmdebstrap").unlink()
    (machine.programs / "apt-get").unlink()

    with pytest.raises(KitError, match="mmdebstrap") as failed:
        base_images.ensure_base_images()
    assert "docker load" in failed.value.hint


@pytest.mark.parametrize(
    ("images", "asks"), [("registry", False), ("mirror", False), ("local", True), (None, True)]
)
def test_only_local_stacks_want_the_base_image(
    monkeypatch: pytest.MonkeyPatch, images: str | None, asks: bool
) -> None:
    steps: list[str] = []
    monkeypatch.setattr(setup, "ensure_docker", lambda: steps.append("docker"))
    monkeypatch.setattr(setup, "ensure_pulumi", lambda: steps.append("pulumi"))
    monkeypatch.setattr(setup, "ensure_base_images", lambda: steps.append("base"))

    setup.run_setup(images)

    assert steps == ["docker", "pulumi", *(["base"] if asks else [])]


def test_a_base_image_that_cannot_be_had_stops_local_stacks_only(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise KitError("no packages", "look at the sources")

    monkeypatch.setattr(setup, "ensure_docker", lambda: None)
    monkeypatch.setattr(setup, "ensure_pulumi", lambda: None)
    monkeypatch.setattr(setup, "ensure_base_images", fail)

    setup.run_setup()
    said = capfd.readouterr().err
    assert "no packages" in said
    assert "look at the sources" in said
    with pytest.raises(KitError, match="no packages"):
        setup.run_setup("local")
