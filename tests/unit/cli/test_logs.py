"""`dify-kit logs`: all services together by time, by any of their names, without a secret, until Ctrl-C."""

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import quote

import pytest
from typer.testing import CliRunner, Result

from dify_kit.__main__ import app
from dify_kit.commands import logs as command
from dify_kit.containers.docker_host import Container, container_of
from dify_kit.errors import UsageError
from dify_kit.watch import logs
from dify_kit.watch.logs import Follower, Line, parsed, since_of
from infra import hints
from infra.engine import runtime
from infra.engine.runtime import WorkloadError
from infra.masking import MASK
from tests.unit.cli.conftest import Machine

SECRET = "zebra-crossing/4711+="
AT = "2026-11-29T20:14:0{}.000000000Z"
LOGGED = {
    "api": [(1, "api starts"), (4, f"api connects with {SECRET}")],
    "worker": [(2, "worker starts")],
    "db-postgres": [(3, "ready to accept connections")],
    "migration": [(0, "database migration successful")],
}


def row(second: int, text: str) -> str:
    return f"{AT.format(second)} {text}\n"


class FakeRuntime:
    """A container with a log; notes how it was asked."""

    logged: Mapping[str, Sequence[tuple[int, str]]] = LOGGED
    followed: Mapping[str, Sequence[bytes]] = {}
    gone: frozenset[str] = frozenset()
    asked: ClassVar[list[tuple[str, int | None, float | None]]] = []

    def __init__(self, reference: str, _timeout: float) -> None:
        self._id = reference
        self._service = reference.removeprefix("id-").removesuffix("-new")

    def __enter__(self) -> Self:  # noqa: D105
        return self

    def __exit__(  # noqa: D105
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def logs(
        self, *, lines: int | None = None, since: float | None = None, errors: bool = False, times: bool
    ) -> bytes:
        assert times
        assert not errors
        self.asked.append((self._service, lines, since))
        if self._service in self.gone:
            raise WorkloadError("No such container: x")
        text = "".join(row(*one) for one in self.logged.get(self._service, ()))
        return text.encode()

    def memory_bytes(self) -> int:
        return 0

    def follow(self, *, since: float) -> Iterator[bytes]:
        self.asked.append((self._id, None, since))
        yield from self.followed.get(self._id, ())


def container(service: str, **more: Any) -> Container:
    given = {"id": f"id-{service}", "name": f"dify-dev-{service}", "service": service, "state": "running"}
    return Container(**{**given, "job": service == "migration", **more})


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["logs", *arguments])


@pytest.fixture(autouse=True)
def _around(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "DockerEngine", lambda: machine.engine)
    monkeypatch.setattr(runtime, "runtime", FakeRuntime)
    monkeypatch.setattr(FakeRuntime, "asked", [])


@pytest.fixture
def stack(machine: Machine) -> Machine:
    """Make a stack with four services, of which one has a secret in its environment."""
    machine.configure()
    machine.engine.stack_containers = [
        container(one, secrets=frozenset({SECRET}) if one == "api" else frozenset()) for one in LOGGED
    ]
    return machine


def test_all_services_are_interleaved_by_time_with_their_names(stack: Machine) -> None:
    done = run()

    assert done.exit_code == 0, done.output
    assert stack.calls() == []
    assert done.stdout.splitlines() == [
        "migration   | database migration successful",
        "api         | api starts",
        "worker      | worker starts",
        "db-postgres | ready to accept connections",
        f"api         | api connects with {MASK}",
    ]


@pytest.mark.parametrize("name", ["db-postgres", "db_postgres"])
def test_a_service_has_two_names(stack: Machine, name: str) -> None:
    assert stack
    assert run(name).stdout == "db-postgres | ready to accept connections\n"


def test_several_services_are_shown_and_no_other(stack: Machine) -> None:
    assert stack
    assert [line.split()[0] for line in run("worker", "migration").stdout.splitlines()] == [
        "migration",
        "worker",
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [("wroker", "wroker is no service of stack dev"), ("web", "web is not part of stack dev")],
)
def test_a_wrong_name_gets_the_nearest_ones(stack: Machine, name: str, said: str) -> None:
    assert stack
    done = run(name)

    assert done.exit_code == 2
    assert said in done.stderr
    assert f"hint: {hints.nearest(name, LOGGED)}" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("options", "lines", "since"),
    [
        ((), 100, None),
        (("--tail", "5"), 5, None),
        (("--since", "2026-11-29T20:14:00"), None, 1795983240.0),
        (("--since", "2026-11-29T21:14:00+01:00", "--tail", "7"), 7, 1795983240.0),
    ],
)
def test_lines_are_asked_for_as_wanted(
    stack: Machine, options: tuple[str, ...], lines: int | None, since: float | None
) -> None:
    assert stack
    assert run("api", *options).exit_code == 0
    assert FakeRuntime.asked == [("api", lines, since)]


def test_no_line_is_asked_for_with_tail_0(stack: Machine) -> None:
    assert stack
    assert (run("--tail", "0").stdout, FakeRuntime.asked) == ("", [])


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("3d", 259200)])
def test_a_length_of_time_counts_from_now(text: str, seconds: int) -> None:
    assert since_of(text, 1_000_000) == 1_000_000 - seconds


@pytest.mark.parametrize("text", ["10", "yesterday", "-5m", "10 m", "", "99999999d", "\uff15m"])
def test_another_form_of_since_is_usage(text: str) -> None:
    with pytest.raises(UsageError, match="--since"):
        since_of(text, 0)


def test_a_wrong_since_exits_with_2_before_the_stack_is_looked_at(machine: Machine) -> None:
    assert run("--since", "soon").exit_code == 2
    assert not machine.home.exists()


def test_json_has_time_service_and_line(stack: Machine) -> None:
    assert stack
    found = [json.loads(line) for line in run("api", "--json").stdout.splitlines()]

    assert found == [
        {"time": AT.format(1), "service": "api", "line": "api starts"},
        {"time": AT.format(4), "service": "api", "line": f"api connects with {MASK}"},
    ]


def test_times_are_shown_on_demand(stack: Machine) -> None:
    assert stack
    assert run("worker", "--times").stdout == f"worker | {AT.format(2)} worker starts\n"


@pytest.mark.parametrize(
    "spelling",
    [
        SECRET,
        quote(SECRET, safe=""),
        json.dumps({"key": SECRET}),
        base64.b64encode(SECRET.encode()).decode(),
        base64.b64encode(f"dify:{SECRET}".encode()).decode(),
        base64.urlsafe_b64encode(f"api-user:{SECRET}".encode()).decode(),
    ],
)
def test_a_secret_is_masked_in_every_spelling(
    stack: Machine, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    assert stack
    monkeypatch.setattr(FakeRuntime, "logged", {"api": [(1, f"sent {spelling} away")]})

    shown = run("api").stdout

    assert MASK in shown
    assert spelling not in shown
    assert shown.startswith("api | sent ")


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer abcdef0123456789", "abcdef0123456789"),
        ("postgresql://dify:s3cr3tpass@db-postgres:5432/dify", "s3cr3tpass"),
        ("key app-0123456789abcdefghijklmn made", "app-0123456789abcdefghijklmn"),
        ("token eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0xxxxx.c2lnbmF0dXJl sent", "eyJhbGciOiJFUzI1NiJ9"),
        ('{"password": "hunter2hunter2"}', "hunter2hunter2"),
        ("OPENAI_API_KEY=abcdefgh12345678", "abcdefgh12345678"),
        ("sk-abcdefghijklmnopqrstuvwx", "sk-abcdefghijklmnopqrstuvwx"),
    ],
)
def test_what_has_the_form_of_a_secret_is_masked_although_it_is_unknown(
    stack: Machine, monkeypatch: pytest.MonkeyPatch, text: str, secret: str
) -> None:
    assert stack
    monkeypatch.setattr(FakeRuntime, "logged", {"api": [(1, text)]})

    shown = run("api").stdout

    assert secret not in shown
    assert MASK in shown


def test_an_ordinary_line_stays_as_it_is(stack: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stack
    text = (
        '10.0.0.1 - "GET /v1/app-info?secret=no HTTP/1.1" 200 http://db-postgres:5432/ the password is wrong'
    )
    monkeypatch.setattr(FakeRuntime, "logged", {"api": [(1, text)]})

    assert run("api").stdout == f"api | {text}\n"


def test_without_the_passphrase_it_warns_and_masks_what_it_can(stack: Machine) -> None:
    done = run()

    assert done.exit_code == 0
    assert "warning: the secrets of the settings: " in done.stderr
    assert SECRET not in done.stdout
    assert stack


def test_a_container_that_is_removed_meanwhile_has_no_lines(
    stack: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stack
    monkeypatch.setattr(FakeRuntime, "gone", frozenset({"worker"}))

    done = run()

    assert done.exit_code == 0
    assert "worker" not in done.stdout
    assert "api starts" in done.stdout


def test_a_stack_that_is_down_is_an_error(machine: Machine) -> None:
    machine.configure()

    done = run()

    assert done.exit_code == 1
    assert "stack dev is not deployed" in done.stderr
    assert hints.kit("up", stack="dev") in done.stderr


def test_lines_of_a_terminal_and_without_a_time_are_read() -> None:
    raw = (
        row(1, "one\rtwo\r") + "a line of its own\n" + row(2, "") + row(3, "separated\u2028text")
    ).encode() + b"\xff"

    found = list(parsed("api", raw))

    assert [line.text for line in found] == [
        "one\rtwo",
        "a line of its own",
        "",
        "separated\u2028text",
        "\ufffd",
    ]
    assert found[1].time == AT.format(1)


# --- following -----------------------------------------------------------------------------------------------------


def followed(machine: Machine, seconds: float, until: int, *, seen: Sequence[Line] = ()) -> list[Line]:
    """Follow until so many lines came, for at most `seconds`."""
    shown: list[Line] = []
    follower = Follower(machine.engine, "dev", LOGGED, 1_000.0)
    follower.seen(seen)
    deadline = time.monotonic() + seconds
    follower.run(shown.extend, until=lambda: len(shown) >= until or time.monotonic() > deadline)
    return shown


def test_new_lines_come_in_the_order_of_their_times(stack: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = {
        "id-api": [row(5, "five").encode()[:20], row(5, "five").encode()[20:], row(7, "seven").encode()],
        "id-worker": [row(6, "six").encode()],
    }
    monkeypatch.setattr(FakeRuntime, "followed", pieces)

    shown = followed(stack, 30, 3)

    assert [(line.service, line.text) for line in shown] == [
        ("api", "five"),
        ("worker", "six"),
        ("api", "seven"),
    ]


def test_a_line_that_was_shown_is_not_shown_again(stack: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeRuntime, "followed", {"id-api": [(row(4, "old") + row(5, "new")).encode()]})

    shown = followed(
        stack, 30, 1, seen=[Line(time=AT.format(4), service="api", text="old", container="id-api")]
    )

    assert [line.text for line in shown] == ["new"]
    moment = datetime(2026, 11, 29, 20, 14, 4, tzinfo=UTC).timestamp()
    assert ("id-api", None, moment) in FakeRuntime.asked
    assert ("id-worker", None, 1_000.0) in FakeRuntime.asked


def test_a_container_that_takes_the_place_is_followed_from_its_start(
    stack: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(
        FakeRuntime, "followed", {"id-api": [row(5, "old").encode()], "id-api-new": [row(6, "new").encode()]}
    )

    def replaced() -> None:
        time.sleep(0.5)
        stack.engine.stack_containers = [container("api", id="id-api-new")]

    threading.Thread(target=replaced).start()
    shown = followed(stack, 30, 2)

    assert [line.text for line in shown] == ["old", "new"]
    assert ("id-api-new", None, 0.0) in FakeRuntime.asked


def test_ctrl_c_ends_with_130_and_no_trace(stack: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stack

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Follower, "run", interrupted)

    done = run("--follow", "--tail", "1")

    assert done.exit_code == 130
    assert "Traceback" not in done.output
    assert "Aborted" not in done.output
    assert "worker starts" in done.stdout


def test_colour_is_for_terminals_alone(stack: Machine) -> None:
    assert stack
    assert "\x1b" not in run().stdout
    script = (
        "import pty, sys; from dify_kit.commands.logs import _Screen; from dify_kit.watch.logs import Line;"
        "from infra.masking import Redactor; from dify_kit.containers.docker_host import Container;"
        "one = Container(id='1', name='api', service='api', job=False, state='running');"
        "_Screen([one], Redactor(), times=False, as_json=False).show([Line(time='', service='api', text='x')])"
    )
    spawned = f"import pty; pty.spawn([{sys.executable!r}, '-c', {script!r}])"
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        base = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        done = subprocess.run(
            [sys.executable, "-c", spawned],
            capture_output=True,
            text=True,
            env=base | environment,
            check=True,
            timeout=60,
        )
        assert ("\x1b[36mapi |\x1b[0m x" in done.stdout) is coloured, done.stdout + done.stderr


def test_the_environments_secrets_are_known_by_their_names() -> None:
    found = container_of(
        {
            "Id": "1",
            "Name": "/dify-dev-api",
            "Config": {
                "Env": [
                    "SECRET_KEY=abc",
                    "LOG_LEVEL=INFO",
                    "CELERY_BROKER_URL=redis://:x@redis",
                    "EMPTY_KEY=",
                ]
            },
            "State": {"Status": "running"},
            "RestartCount": 2,
            "HostConfig": {"Memory": 7},
        }
    )

    assert found.secrets == {"abc", "redis://:x@redis"}
    assert (found.restarts, found.memory_limit) == (2, 7)
