"""The commands as an operator calls them: order of steps, exit codes, what is said where."""

import json
import math
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner, Result

from dify_kit.__main__ import app
from dify_kit.app import Group
from dify_kit.checks import preflight
from dify_kit.containers.docker_host import Container, Network
from dify_kit.engine.cli import require_success
from dify_kit.errors import CancelledError, KitError
from dify_kit.stack import settings as stack_settings
from dify_kit.workspace.files import DataDir
from infra.catalogue.checks import shown
from support.ports import free_port
from tests.unit.cli.conftest import Machine

RECORDED = Path(__file__).with_name("data")
URN = "urn:pulumi:dev::dify::docker:index/container:Container::"
STACK = {
    "urn": "urn:pulumi:dev::dify::pulumi:pulumi:Stack::dify-dev",
    "type": "pulumi:pulumi:Stack",
    "outputs": {
        "publicUrl": "http://localhost:18080",
        "serviceApiUrl": "http://localhost:18080/v1",
        "adminEmail": "admin@example.com",
        "standIn": True,
    },
}


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def recorded(name: str) -> str:
    return (RECORDED / f"{name}.jsonl").read_text(encoding="utf-8")


def event(operation: str, name: str, kind: str = "resOutputsEvent") -> str:
    metadata = {"op": operation, "urn": f"{URN}{name}", "type": "docker:index/container:Container"}
    metadata |= {"old" if operation == "delete" else "new": {"custom": True, "id": "x"}}  # type: ignore[dict-item]
    return json.dumps({kind: {"metadata": metadata}}) + "\n"


def verbs(machine: Machine) -> list[str]:
    return [call["args"][0] for call in machine.calls()]


@pytest.fixture
def deployed(machine: Machine) -> Machine:
    """Make a machine with stack `dev` configured and deployed."""
    machine.configure(httpPort=free_port())
    machine.state(resources=[STACK, {"urn": f"{URN}api", "type": "t", "id": "api-id"}])
    return machine


# up


def test_up_on_a_new_stack_creates_it_first(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "check", lambda _files, _engine: None)
    # Whether port 8080 of the machine that runs the tests is free does not matter here.
    monkeypatch.setattr(preflight, "first", lambda _files: None)
    machine.engine.registry_problem = "no route"
    machine.play(up={"events": event("create", "api")})

    done = run("up")

    assert done.exit_code == 0, done.output
    # The last one reads Dify's key of the LLM proxy: what the fake encrypts cannot be read here.
    assert verbs(machine) == ["stack", "config", "up", "config"]
    assert done.stdout == ""


def test_up_on_a_deployed_stack_is_one_deployment_and_says_where_it_is(deployed: Machine) -> None:
    done = run("up")

    assert done.exit_code == 0, done.output
    # The second one reads Dify's key of the LLM proxy: what the fake encrypts cannot be read here.
    call, reading = deployed.calls()
    assert reading["args"][:3] == ["config", "get", "dify:llmDifyKey"]
    assert call["args"][:4] == ["up", "--refresh", "--yes", "--skip-preview"]
    assert {"http://localhost:18080", "http://localhost:18080/v1", "admin@example.com"} <= set(
        done.stderr.split()
    )
    assert "nothing to change" in done.stderr
    assert "stand-ins" in done.stderr


def test_up_gives_pulumi_its_backend_and_passphrase(deployed: Machine) -> None:
    run("up")

    [call] = deployed.calls("up")
    environment = call["environment"]
    assert environment["PULUMI_BACKEND_URL"] == f"file://{deployed.home}/state"
    assert environment["PULUMI_CONFIG_PASSPHRASE_FILE"] == f"{deployed.home}/passphrase"
    assert (deployed.home / "passphrase").read_text().strip()


def test_operators_backend_and_passphrase_win(deployed: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://bucket")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "mine")
    deployed.play(stack={"stdout": '{"deployment": {"resources": []}}'})
    (deployed.home / "passphrase").unlink()

    run("up")

    [call] = deployed.calls("up")
    assert call["environment"]["PULUMI_BACKEND_URL"] == "s3://bucket"
    assert "PULUMI_CONFIG_PASSPHRASE_FILE" not in call["environment"]
    assert not (deployed.home / "passphrase").exists()


def test_failed_preflight_means_no_pulumi_call(deployed: Machine) -> None:
    port = free_port()
    deployed.configure(httpPort=port)
    deployed.engine.ports = {port: ["somebody"]}

    done = run("up")

    assert done.exit_code == 1
    assert f"dify:httpPort: {port} is published by container somebody" in done.stderr
    assert deployed.calls() == []


def test_failing_service_is_shown_once_with_its_log_lines(deployed: Machine) -> None:
    deployed.play(up={"code": 255, "events": recorded("not-ready"), "stdout": "noise\n"})

    done = run("up")

    assert done.exit_code == 1
    assert done.stderr.count("ValueError: bad db url") == 1
    assert "pulumi/dynamic/__main__.py" not in done.stderr
    assert done.stdout == ""


def test_error_before_any_event_is_shown(deployed: Machine) -> None:
    deployed.play(up={"code": 255, "stderr": "error: no resource plugin 'docker' found\n"})

    done = run("up")

    assert done.exit_code == 1
    assert "no resource plugin" in done.stderr
    assert "hint: `dify-kit setup`" in done.stderr


@pytest.mark.usefixtures("deployed")
def test_missing_engine_has_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["dify_kit.setup"], "engine_env", lambda: {"PATH": "/nowhere"})

    done = run("up")

    assert done.exit_code == 1
    assert "`dify-kit setup`" in done.stderr


def test_up_repairs_before_it_deploys(deployed: Machine) -> None:
    deployed.engine.stack_containers = [
        Container(id="api-id", name="dify-dev-api", service="api", job=False, state="exited", exit_code=1)
    ]

    done = run("up")

    assert deployed.engine.removed == ["api-id"]
    assert "api is exited with exit code 1" in done.stderr


def test_verbose_shows_pulumis_own_words(deployed: Machine) -> None:
    deployed.play(up={"stdout": "raw line of pulumi\n"})
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        deployed.pulumi().stream("up", deadline=20, verbose=True)
    with os.fdopen(reader) as stream:
        assert stream.read() == "raw line of pulumi\n"


# signals, deadlines


# How long something may take that is a moment on an idle machine.
SIGNAL_SECONDS = 300


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for a condition, for `SIGNAL_SECONDS` at most: the test then fails by what follows."""
    deadline = time.monotonic() + SIGNAL_SECONDS
    while time.monotonic() < deadline and not condition():
        time.sleep(0.05)


def when_playing(machine: Machine, action: Callable[[], object]) -> threading.Thread:
    """Act once the fake Pulumi plays its scene and this process handles signals, in whichever order that comes."""
    before = signal.getsignal(signal.SIGINT)

    def wait() -> None:
        wait_for((machine.fake / "playing").exists)
        wait_for(lambda: signal.getsignal(signal.SIGINT) != before)
        action()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_first_signal_stops_pulumi_in_an_orderly_way(deployed: Machine, number: signal.Signals) -> None:
    deployed.play(up={"seconds": 600})
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    thread = when_playing(deployed, lambda: os.kill(os.getpid(), number))

    outcome = deployed.pulumi().stream("up", deadline=500)
    thread.join(timeout=10)

    assert outcome.stopped == number.name
    assert (deployed.fake / "terminated").exists()
    assert {one: signal.getsignal(one) for one in before} == before
    assert not (deployed.home / "runs" / "dev.json").exists()
    with pytest.raises(CancelledError):
        require_success(outcome, "deploying", "dev")


def test_second_signal_kills(deployed: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing else may kill it: neither the grace after the first signal, nor the deadline of the command.
    monkeypatch.setattr("dify_kit.engine.cli._STOP_GRACE", math.inf)
    deployed.play(up={"seconds": 600, "polite": False})

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        # One signal that arrives twice before the first is looked at is one signal.
        wait_for((deployed.fake / "ignored").exists)
        os.kill(os.getpid(), signal.SIGINT)

    thread = when_playing(deployed, twice)
    outcome = deployed.pulumi().stream("up", deadline=math.inf)
    thread.join(timeout=10)

    assert (deployed.fake / "ignored").exists()
    assert outcome.code == -signal.SIGKILL
    assert outcome.stopped == "SIGINT"


def test_deadline_stops_pulumi_and_says_what_was_in_flight(deployed: Machine) -> None:
    deployed.play(up={"seconds": 60, "events": event("create", "api", "resourcePreEvent")})

    outcome = deployed.pulumi().stream("up", deadline=10)

    assert (deployed.fake / "terminated").exists()
    with pytest.raises(KitError, match=r"not finished within 10 s; still working: container api"):
        require_success(outcome, "deploying", "dev")


def test_quick_command_has_a_deadline(deployed: Machine) -> None:
    deployed.play(stack={"seconds": 30})

    with pytest.raises(KitError, match="did not end within 0 s"):
        deployed.pulumi().run("stack", "output", deadline=0.4)


def test_one_command_at_a_time(deployed: Machine) -> None:
    with deployed.files().lock():
        done = run("preview")

    assert done.exit_code == 1
    assert f"process {os.getpid()}" in done.stderr


# preview, refresh


def test_preview_prints_changes_on_stdout_and_nothing_else(deployed: Machine) -> None:
    deployed.play(preview={"events": recorded("preview")})

    done = run("preview")

    assert done.exit_code == 0, done.output
    assert [line.split()[:3] for line in done.stdout.splitlines()] == [
        ["±", "container", "good"],
        ["-", "network", "net"],
    ]


@pytest.mark.parametrize(("events", "code"), [("", 0), (recorded("preview"), 3)])
def test_preview_can_insist_on_no_changes(deployed: Machine, events: str, code: int) -> None:
    deployed.play(preview={"events": events})

    assert run("preview", "--expect-no-changes").exit_code == code


def test_refresh_reports_drift(deployed: Machine) -> None:
    # What differs comes as a refresh; what reports itself gone comes as a removal from the state.
    events = [
        line
        for line in recorded("drift").splitlines()
        if '"op": "refresh"' in line or ('"op": "delete"' in line and "::bad" in line)
    ]
    deployed.play(refresh={"events": "\n".join(events) + "\n"})

    done = run("refresh")

    assert done.exit_code == 0
    assert "2 resource(s) had drifted" in done.stderr
    assert "container good is gone" in done.stderr


@pytest.mark.parametrize("command", ["preview", "refresh", "down", "output", "password"])
def test_unknown_stack_is_an_error_with_a_hint(machine: Machine, command: str) -> None:
    done = run(command, "--stack", "nowhere")

    assert done.exit_code == 1
    assert "`dify-kit up --stack nowhere`" in done.stderr
    assert machine.calls() == []
    assert done.stdout == ""


# down


def test_down_keeps_the_data_and_says_where_it_is(deployed: Machine) -> None:
    deployed.engine.existing_volumes = {"dify-dev-postgres", "dify-dev-redis"}

    done = run("down")

    assert done.exit_code == 0, done.output
    [call] = deployed.calls()
    assert call["args"][:4] == ["destroy", "--refresh", "--yes", "--skip-preview"]
    assert deployed.engine.removed == []
    assert "dify-dev-postgres" in done.stderr
    assert "--delete-data" in done.stderr


def test_down_fails_when_something_stays(deployed: Machine) -> None:
    deployed.state(resources=[STACK, {"urn": f"{URN}api", "type": "t", "id": "api-id"}])
    deployed.engine.stack_containers = [
        Container(id="api-id", name="dify-dev-api", service="api", job=False, state="running")
    ]

    done = run("down")

    assert done.exit_code == 1
    assert "dify-dev-api" in done.stderr


def test_down_removes_orphans(deployed: Machine) -> None:
    deployed.engine.stack_containers = [
        Container(id="stray", name="dify-dev-stray", service="stray", job=False, state="running")
    ]
    deployed.engine.stack_networks = [Network(id="net", name="dify-dev-old")]

    assert run("down").exit_code == 0
    assert deployed.engine.removed == ["stray", "net"]


def test_data_is_deleted_only_by_name(deployed: Machine) -> None:
    deployed.engine.existing_volumes = {
        "dify-dev-postgres",
        "dify-dev-vector",
        "dify-dev-2-postgres",
        "foreign",
    }

    done = run("down", "--yes-delete-data-of", "dev")

    assert done.exit_code == 0, done.output
    assert deployed.engine.existing_volumes == {"dify-dev-2-postgres", "foreign"}


@pytest.mark.parametrize("arguments", [["--delete-data"], ["--yes-delete-data-of", "prod"]])
def test_data_is_not_deleted_on_a_hunch(deployed: Machine, arguments: list[str]) -> None:
    deployed.engine.existing_volumes = {"dify-dev-postgres"}

    done = run("down", *arguments, stdin="dev\n")

    assert done.exit_code == 2
    assert deployed.engine.existing_volumes == {"dify-dev-postgres"}
    assert deployed.calls() == []


@pytest.mark.parametrize(
    ("typed", "code", "left"), [("dev\n", 0, 0), ("Dev\n", 1, 1), ("y\n", 1, 1), ("\n", 1, 1)]
)
def test_name_must_be_typed(
    deployed: Machine, monkeypatch: pytest.MonkeyPatch, typed: str, code: int, left: int
) -> None:
    deployed.engine.existing_volumes = {"dify-dev-postgres"}
    monkeypatch.setattr("dify_kit.commands.down._at_a_terminal", lambda: True)

    done = run("down", "--delete-data", stdin=typed)

    assert done.exit_code == code
    assert len(deployed.engine.existing_volumes) == left


# reading


def test_output_is_json_on_stdout(deployed: Machine) -> None:
    deployed.play(stack={"stdout": '{"publicUrl": "http://x", "appKeys": "[secret]"}'})

    done = run("output")

    assert json.loads(done.stdout) == {"publicUrl": "http://x", "appKeys": "[secret]"}
    assert "--show-secrets" not in deployed.calls("stack", "output")[0]["args"]


@pytest.mark.parametrize(("name", "text"), [("publicUrl", "http://x\n"), ("ports", "[1, 2]\n")])
def test_one_output_is_plain(deployed: Machine, name: str, text: str) -> None:
    deployed.play(stack={"stdout": '{"publicUrl": "http://x", "ports": [1, 2]}'})

    assert run("output", name).stdout == text


def test_unknown_output_lists_the_known(deployed: Machine) -> None:
    deployed.play(stack={"stdout": '{"publicUrl": "http://x"}'})

    done = run("output", "nope")

    assert done.exit_code == 1
    assert "publicUrl" in done.stderr


def test_password_is_alone_on_stdout(deployed: Machine) -> None:
    deployed.play(config={"stdout": "s3cret\n"})

    done = run("password")

    assert done.stdout == "s3cret\n"
    assert deployed.calls("config", "get")[0]["args"][2] == "dify:adminPassword"


def test_env_is_shell_that_finds_the_stack(deployed: Machine) -> None:
    done = run("env")

    script = (
        done.stdout
        + 'printf "%s\\n" "$PULUMI_BACKEND_URL" "$PULUMI_CONFIG_PASSPHRASE_FILE" "$PULUMI_STACK"; command -v pulumi'
    )
    told = subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, text=True, check=True, timeout=10
    ).stdout
    assert told.splitlines() == [
        f"file://{deployed.home}/state",
        f"{deployed.home}/passphrase",
        "dev",
        str(deployed.checkout.parent / "bin" / "pulumi"),
    ]
    assert all(shlex.split(line)[0] == "export" for line in done.stdout.splitlines())


@pytest.mark.usefixtures("deployed")
def test_env_prints_no_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "precious")

    assert "precious" not in run("env").output


# files


def test_open_directories_are_closed(machine: Machine) -> None:
    machine.files()
    machine.home.chmod(0o755)
    (machine.home / "passphrase").write_text("p\n")
    (machine.home / "passphrase").chmod(0o644)

    machine.files()

    modes = [stat.S_IMODE((machine.home / name).stat().st_mode) for name in (".", "passphrase")]
    assert modes == [0o700, 0o600]


def test_configuration_that_pulumi_replaced_is_moved_back(deployed: Machine) -> None:
    files = deployed.files()
    with files.writing():
        files.linked.unlink()
        files.linked.write_text("config:\n  dify:images: registry\n")

    assert files.linked.is_symlink()
    assert files.config()["dify:images"] == "registry"
    assert stat.S_IMODE(files.stored.stat().st_mode) == 0o600


def test_deleted_checkout_loses_nothing(deployed: Machine) -> None:
    (deployed.checkout / "Pulumi.dev.yaml").unlink()

    assert deployed.files().configured()
    assert (deployed.checkout / "Pulumi.dev.yaml").is_symlink()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"DIFY_KIT_HOME": "/kit"}, "/kit"),
        ({"XDG_DATA_HOME": "/data"}, "/data/dify-kit"),
        ({"XDG_DATA_HOME": "relative"}, None),
        ({}, None),
    ],
)
def test_data_directory_follows_the_environment(environment: dict[str, str], expected: str | None) -> None:
    assert DataDir.locate(environment).root == Path(expected or Path.home() / ".local/share/dify-kit")


# preflight


def guard(machine: Machine) -> None:
    files = machine.files()
    preflight.guard(files, stack_settings.read(files), machine.engine)


def listening() -> socket.socket:
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()
    return server


def test_port_in_use_is_refused_unless_our_own_edge_holds_it(machine: Machine) -> None:
    with listening() as server:
        port = server.getsockname()[1]
        machine.configure(httpPort=port)
        with pytest.raises(KitError, match=f"dify:httpPort: {port} on 127.0.0.1"):
            guard(machine)

        machine.engine.ports = {port: ["dify-dev-nginx"]}
        guard(machine)


@pytest.mark.parametrize(
    ("tls", "looked_at"),
    [
        ({"mode": "selfsigned"}, True),
        ('{"mode": "selfsigned"}', True),
        ({"mode": "off"}, False),
        ({"mode": False}, False),
        ({"redirect": True}, False),
    ],
)
def test_port_of_tls_is_looked_at_when_there_is_tls(machine: Machine, tls: Any, looked_at: bool) -> None:
    with listening() as server:
        port = server.getsockname()[1]
        machine.configure(httpPort=free_port(), httpsPort=port, tls=tls)
        if not looked_at:
            guard(machine)
            return
        with pytest.raises(KitError, match=f"dify:httpsPort: {port} on 127.0.0.1") as refused:
            guard(machine)
        assert "dify-kit set httpsPort" in refused.value.hint

        machine.engine.ports = {port: ["dify-dev-nginx"]}
        guard(machine)


def test_ports_of_this_machine_say_nothing_about_a_remote_engine(machine: Machine) -> None:
    machine.engine.is_local = False
    with listening() as server:
        machine.configure(httpPort=server.getsockname()[1])
        guard(machine)


@pytest.mark.parametrize("port", ["http", 70000, -1])
def test_malformed_settings_are_refused_in_the_programs_words(
    deployed: Machine, port: Any
) -> None:  # as in YAML
    deployed.configure(httpPort=port, tls="not JSON")

    done = run("up", "--skip-setup")

    assert done.exit_code == 1
    told = " ".join(done.stderr.split())
    assert f"dify:httpPort: {shown(port)}: not a whole number in range; use a number from 1 to 65535" in told
    assert "dify:tls: 'not JSON': not an object" in told
    assert deployed.calls() == [], "Pulumi is not started"


def test_full_disk_is_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _path: type("Usage", (), {"free": 1024**3})())

    with pytest.raises(KitError, match=r"1\.0 GiB"):
        preflight.check_disk(machine.engine)


def test_usage_errors_exit_with_2(machine: Machine) -> None:
    assert run("up", "--nonsense").exit_code == 2
    assert run("up", "--timeout", "-1").exit_code == 2
    assert machine.calls() == []


@pytest.mark.parametrize(
    "command",
    ["init", "up", "preview", "refresh", "down", "output", "password", "env", "client", "keys", "usage"],
)
def test_every_command_explains_itself(command: str) -> None:
    done = run(command, "--help")

    assert done.exit_code == 0
    assert len(done.stdout.split()) > 30


def test_every_command_and_option_is_documented() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    sections = {part.splitlines()[0]: part for part in text.split("\n## ")}
    group = typer.main.get_command(app)
    assert isinstance(group, Group)
    commands = [
        (name, one)
        for name, command in group.commands.items()
        for one in (command, *(command.commands.values() if isinstance(command, Group) else ()))
    ]
    missing = [
        f"{name} {option}"
        for name, command in commands
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("--") and option not in sections.get(name, "") + sections["Common options"]
    ]

    assert missing == []
    assert set(group.commands) <= set(sections)
    for name, command in group.commands.items():
        if isinstance(command, Group):
            assert [one for one in command.commands if f"`dify-kit {name} {one}" not in sections[name]] == []
