"""Admin, App and AppKey against a running api: the way in, the client, and the resources in real Pulumi programs."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

from infra.catalogue.releases import RELEASES
from infra.resources.console import mark
from infra.resources.console_client import KEEP_KEYS, NOTES, ConsoleError
from infra.resources.console_providers import AppKeyProvider, DatasetKeyProvider, marker
from infra.resources.console_session import SESSIONS, LoginError, LoginRefusedError, Sessions
from infra.resources.console_transport import (
    ContainerMissingError,
    ContainerTransport,
    NotReachedError,
    Request,
    TransportError,
)
from infra.settings.apps import app_file
from support.images import image_of
from support.stacks import CHECKOUT, wait_until
from tests.integration.small_dify import ADMIN_EMAIL, ConsoleProgram, SmallDify

ECHO = app_file("echo-chat").read_text(encoding="utf-8")
MODE = "advanced-chat"


@pytest.fixture(scope="module")
def one_dify() -> Iterator[SmallDify]:
    """An instance for all tests of this file."""
    dify = SmallDify()
    try:
        yield dify.start()
    finally:
        dify.remove()


@pytest.fixture
def dify(one_dify: SmallDify) -> SmallDify:
    """The instance, as new."""
    one_dify.empty()
    return one_dify


@pytest.fixture
def claimed(dify: SmallDify) -> SmallDify:
    """The instance, claimed by the admin."""
    dify.console().claim("admin", dify.init_password)
    return dify


@pytest.fixture(scope="module")
def new_program(one_dify: SmallDify, tmp_path_factory: pytest.TempPathFactory) -> ConsoleProgram:
    """A program with one app, nothing of it deployed. Not to be changed: to be copied."""
    return ConsoleProgram(dify=one_dify, home=tmp_path_factory.mktemp("new") / "program", apps={"echo": ECHO})


@pytest.fixture(scope="module")
def deployed_program(
    one_dify: SmallDify, new_program: ConsoleProgram, tmp_path_factory: pytest.TempPathFactory
) -> ConsoleProgram:
    """The program after its first deployment, which its instance has saved. Not to be changed: to be copied."""
    one_dify.empty()
    program = new_program.copy(tmp_path_factory.mktemp("deployed") / "program")
    assert program.up()["create"] == 4
    one_dify.save()
    return program


@pytest.fixture
def program(dify: SmallDify, new_program: ConsoleProgram, tmp_path: Path) -> ConsoleProgram:
    """A program with one app, nothing of it deployed, before a new instance."""
    assert dify.sql("select count(*) from accounts") == "0"
    return new_program.copy(tmp_path / "program")


@pytest.fixture
def deployed(one_dify: SmallDify, deployed_program: ConsoleProgram, tmp_path: Path) -> ConsoleProgram:
    """The program and its instance as the first deployment left them."""
    one_dify.restore()
    return deployed_program.copy(tmp_path / "program")


def saying(text: str) -> str:
    """Return the echo app's DSL with another opening statement."""
    document = yaml.safe_load(ECHO)
    document["workflow"]["features"]["opening_statement"] = text
    return str(yaml.safe_dump(document))


# The way in.


def test_answer_comes_with_status_headers_and_body(dify: SmallDify) -> None:
    answer = dify.send("GET", "/console/api/setup")

    assert (answer.status, answer.json()["step"]) == (200, "not_started")
    assert ("X-Version", dify.release) in answer.headers


def test_missing_and_stopped_containers_are_told_apart(dify: SmallDify) -> None:
    stopped = dify.client.containers.create(image_of("api"), name=f"{dify.prefix}-stopped")
    try:
        with pytest.raises(ContainerMissingError, match=rf"{stopped.name} does not run \(created\)"):
            ContainerTransport(stopped.name).send(Request(method="GET", path="/"))
        with pytest.raises(ContainerMissingError, match=f"there is no container {dify.prefix}-none"):
            ContainerTransport(f"{dify.prefix}-none").send(Request(method="GET", path="/"))
    finally:
        stopped.remove(force=True)


def test_api_that_does_not_listen_yet_is_known_from_a_lost_answer(dify: SmallDify) -> None:
    silent = dify.client.containers.run(
        image_of("api"), entrypoint=["sleep", "60"], name=f"{dify.prefix}-silent", detach=True
    )
    try:
        with pytest.raises(NotReachedError, match="refused"):
            ContainerTransport(silent.name).send(Request(method="GET", path="/"))
    finally:
        silent.remove(force=True)


def test_request_ends_at_its_deadline_and_leaves_no_process(dify: SmallDify) -> None:
    database = dify.client.containers.get(f"{dify.prefix}-postgres")
    database.pause()
    try:
        started = time.monotonic()
        with pytest.raises(TransportError, match="no answer within 1 s"):
            dify.send("GET", "/console/api/setup", seconds=1)
        assert time.monotonic() - started < 5
    finally:
        database.unpause()
    processes = dify.client.containers.get(dify.api).top()["Processes"]
    assert not [process for process in processes if "urllib" in " ".join(process)]


def test_secrets_show_neither_in_processes_nor_in_the_engine(dify: SmallDify) -> None:
    secret = f"secret-{os.urandom(8).hex()}"
    database = dify.client.containers.get(f"{dify.prefix}-postgres")
    container = dify.client.containers.get(dify.api)
    database.pause()
    body = {"email": ADMIN_EMAIL, "password": secret, "name": "a"}

    def send() -> None:
        with pytest.raises(TransportError):
            dify.send("POST", "/console/api/setup", json_body=body, seconds=3)

    try:
        with ThreadPoolExecutor() as threads:
            sent = threads.submit(send)
            wait_until(
                lambda: "urllib" in json.dumps(container.top()), seconds=5, what="the request under way"
            )
            shown = json.dumps(container.top())
            container.reload()
            execs = [dify.client.api.exec_inspect(one) for one in container.attrs["ExecIDs"] or []]
            sent.result()
    finally:
        database.unpause()

    assert execs
    assert secret not in shown
    assert secret not in json.dumps(execs)
    assert secret not in json.dumps(container.attrs)


@pytest.fixture
def tcp_engine() -> Iterator[str]:
    """The engine behind a TCP port, by a relay that never tells the client that the engine has ended a stream."""
    adapter: Any = docker.from_env().api.get_adapter("http+docker://")
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)

    def serve(near: socket.socket) -> None:
        with near, socket.socket(socket.AF_UNIX) as far:
            far.connect(adapter.socket_path)
            threading.Thread(target=pump, args=(far, near), daemon=True).start()
            pump(near, far)
            far.shutdown(socket.SHUT_RDWR)

    def listen() -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                threading.Thread(target=serve, args=(near,), daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()
    yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()


def test_remote_engine_over_tcp(claimed: SmallDify, tcp_engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", tcp_engine)
    large, mode = mark(saying("long " * 200_000), "large")
    console = claimed.console()
    started = time.monotonic()

    app = console.import_app(large, mode)

    assert console.find_app(marker("large"), mode) == app
    assert time.monotonic() - started < console.seconds


# The client.


@pytest.mark.parametrize("release", RELEASES)
def test_claim_import_and_key_on_every_release(release: str) -> None:
    dify = SmallDify(release=release, https=True)
    try:
        dify.start()
        console = dify.console()
        console.claim("admin", dify.init_password)
        dsl, mode = mark(ECHO, "echo-chat")
        app = console.import_app(dsl, mode)
        _, key, unnoted = console.create_key(app, "key")

        assert all(name.startswith("__Host-") for name in console.sign_in().cookies)
        assert console.app(app)["mode"] == MODE
        assert (dify.key_works(key), unnoted) == (True, "")
    finally:
        dify.remove()


def test_wrong_password_is_tried_once(claimed: SmallDify) -> None:
    console = claimed.console(password="Not-the-password-1", sessions=Sessions())

    with ThreadPoolExecutor(8) as threads:
        refusals = [one.exception() for one in [threads.submit(console.app, "an-app") for _ in range(8)]]
    for _ in range(5):
        with pytest.raises(LoginRefusedError, match="dify:adminPassword"):
            console.keys("an-app")

    assert {type(one) for one in refusals} == {LoginRefusedError}
    assert claimed.login_failures() == 1


def test_locked_account_is_said_to_be_locked(claimed: SmallDify) -> None:
    for _ in range(6):
        with pytest.raises(LoginError):
            claimed.console(password="Not-the-password-1", sessions=Sessions()).sign_in()

    with pytest.raises(LoginError, match="has locked the account"):
        claimed.console().sign_in()


def test_wrong_init_password_is_a_clear_error(dify: SmallDify) -> None:
    with pytest.raises(ConsoleError, match="dify:initPassword is not") as problem:
        dify.console().claim("admin", "not-the-init-password")

    assert "not-the-init-password" not in str(problem.value)
    assert not dify.console().setup_finished()


def test_claiming_twice_adopts(claimed: SmallDify) -> None:
    again = claimed.console()
    again.claim("somebody else", claimed.init_password)

    again.sign_in()
    assert claimed.sql("select name from accounts") == "admin"


def test_password_change_keeps_the_session(claimed: SmallDify) -> None:
    console = claimed.console()
    new = "Another-password-2"
    console.change_password(new)
    changed = claimed.console(password=new, sessions=console.sessions)

    assert changed.sign_in() is console.sign_in()
    assert claimed.console(password=new).sign_in().cookies
    with pytest.raises(LoginRefusedError):
        claimed.console().sign_in()


def test_oldest_marked_app_is_found(claimed: SmallDify) -> None:
    console = claimed.console()
    dsl, mode = mark(ECHO, "echo-chat")
    first = console.import_app(dsl, mode)
    claimed.sql(f"update apps set created_at = now() - interval '1 hour' where id = '{first}'")
    copy = console.import_app(dsl, mode)
    for _ in range(3):
        console.import_app(mark(ECHO, "other")[0], mode)

    assert copy != first
    assert console.find_app(marker("echo-chat"), mode) == first
    assert console.find_app(marker("echo-chat"), "workflow") is None
    assert console.find_app(marker("none"), mode) is None


def test_import_over_an_app_keeps_its_id_and_is_published(claimed: SmallDify) -> None:
    console = claimed.console()
    app = console.import_app(ECHO, MODE)

    again = console.import_app(saying("Changed."), MODE, app)

    assert again == app
    published = yaml.safe_load(claimed.sql(f"select published from apps where id = '{app}'"))
    assert published["workflow"]["features"]["opening_statement"] == "Changed."


def test_eleventh_key_says_what_to_do(claimed: SmallDify) -> None:
    console = claimed.console()
    app = console.import_app(ECHO, MODE)
    for number in range(10):
        console.create_key(app, f"key {number}")

    with pytest.raises(ConsoleError, match="Dify allows ten keys an app"):
        console.create_key(app, "one more")


def test_malformed_dsl_is_refused_with_difys_reason(claimed: SmallDify) -> None:
    with pytest.raises(ConsoleError, match="Invalid YAML format"):
        claimed.console().import_app("app: {name: x}", MODE)


KILLED_AFTER_ASKING_FOR_A_KEY = """
import json, os, signal, sys
import docker.utils.socket
from infra.resources import console_transport as transport
from infra.resources.console_providers import AppKeyProvider

send = transport.ContainerTransport.send

def send_and_die(self, request):
    if request.note:
        docker.utils.socket.frames_iter = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    return send(self, request)

transport.ContainerTransport.send = send_and_die
AppKeyProvider().create(json.loads(sys.stdin.read()))
"""


def test_killed_while_a_key_is_made_leaves_no_key_behind(claimed: SmallDify) -> None:
    console = claimed.console()
    app = console.import_app(ECHO, MODE)
    props = {
        "container": claimed.api,
        "console_url": claimed.url,
        "email": ADMIN_EMAIL,
        "password": claimed.password,
        "app_id": app,
        "owner": "key-echo",
    }
    for _ in range(3):
        before = console.keys(app)
        killed = subprocess.run(
            [sys.executable, "-c", KILLED_AFTER_ASKING_FOR_A_KEY],
            input=json.dumps(props),
            text=True,
            cwd=CHECKOUT,
            check=False,
            timeout=60,
        )
        assert killed.returncode == -signal.SIGKILL
        wait_until(lambda before=before: console.keys(app) - before, seconds=120, what="the orphan")  # type: ignore[misc]
    # The last orphan is noted a moment after it is listed.
    (orphan,) = console.keys(app)
    note = f"cat {NOTES}/{app}-*"
    api = claimed.client.containers.get(claimed.api)
    wait_until(
        lambda: api.exec_run(["sh", "-c", note]).output.decode() == orphan, seconds=120, what="the note"
    )
    claimed.recreate_api()

    made = AppKeyProvider().create(props)

    assert made.outs is not None
    assert console.keys(app) == {made.id}
    assert made.id != orphan
    assert claimed.key_works(made.outs["key"])


def test_life_of_a_key_of_the_knowledge_api(claimed: SmallDify, monkeypatch: pytest.MonkeyPatch) -> None:
    console, provider = claimed.console(), DatasetKeyProvider()
    # The account is a new one: what this process remembers is of another.
    SESSIONS.clear()
    props = {
        "container": claimed.api,
        "console_url": claimed.url,
        "email": ADMIN_EMAIL,
        "password": claimed.password,
        "owner": "key-canary-knowledge",
        "key": None,
    }

    def opens(key: str) -> int:
        answer = claimed.send("GET", "/v1/datasets", headers={"Authorization": f"Bearer {key}"})
        return int(answer.status)

    forgotten = provider.create(props)
    made = provider.create(props)

    assert made.outs is not None
    assert forgotten.outs is not None
    # The key without a note is gone.
    assert console.dataset_keys() == {made.id}
    assert (opens(forgotten.outs["key"]), opens(made.outs["key"])) == (401, 200)
    assert provider.read(str(made.id), made.outs).id == made.id
    # With a lost state it is the key that callers have.
    monkeypatch.setenv(KEEP_KEYS, "1")
    assert provider.create(props).outs == made.outs
    monkeypatch.delenv(KEEP_KEYS)
    assert not provider.diff(str(made.id), made.outs, props).changes
    moved = provider.update(str(made.id), made.outs, props | {"console_url": "http://elsewhere"})
    assert moved.outs is not None
    assert moved.outs["key"] == made.outs["key"]

    provider.delete(str(made.id), made.outs)

    assert opens(made.outs["key"]) == 401
    assert not provider.read(str(made.id), made.outs).id


# The resources.


def test_life_of_the_resources(deployed: ConsoleProgram) -> None:
    dify = deployed.dify
    echo = deployed.output("echo")
    assert echo["mode"] == MODE
    assert dify.key_works(echo["key"])

    dify.recreate_api()
    assert deployed.steps("--refresh") == {}
    assert set(deployed.up()) == {"same"}

    deployed.destroy()
    assert not dify.key_works(echo["key"])
    assert dify.console().find_app(marker("echo"), MODE) == echo["id"]

    deployed.up()
    reborn = deployed.output("echo")
    assert reborn["id"] == echo["id"]
    assert reborn["key"] != echo["key"]
    assert dify.key_works(reborn["key"])
    assert len(dify.console().keys(echo["id"])) == 1


def test_no_secret_is_readable_in_the_state_or_told(program: ConsoleProgram) -> None:
    told = program.try_up(refresh=False).output
    program.set_secret("password", "Another-password-2")
    told += program.try_up().output
    key = program.output("echo")["key"]
    shown = program.pulumi("stack", "output", "--json").output
    secrets = [program.dify.password, program.dify.init_password, "Another-password-2", key]

    written = program.on_disk()
    assert len(written) > 5
    assert [one for one in secrets if any(one.encode() in text for text in written)] == []
    assert [one for one in secrets if one in told + shown] == []
    assert program.dify.key_works(key)


def test_changed_dsl_keeps_app_and_key(deployed: ConsoleProgram) -> None:
    before = deployed.output("echo")

    deployed.apps = {"echo": saying("Changed.")}
    steps = deployed.steps()
    changes = deployed.up()

    assert steps == {"app-echo": "update"}
    assert changes["update"] == 1
    assert deployed.output("echo") == before
    app = before["id"]
    published = yaml.safe_load(deployed.dify.sql(f"select published from apps where id = '{app}'"))
    assert published["workflow"]["features"]["opening_statement"] == "Changed."


@pytest.mark.parametrize(
    ("table", "lost"),
    [("api_tokens", {"key-echo": "create"}), ("apps", {"app-echo": "create", "key-echo": "create"})],
)
def test_what_was_deleted_by_hand_is_made_again(
    deployed: ConsoleProgram, table: str, lost: dict[str, str]
) -> None:
    before = deployed.output("echo")
    deployed.dify.sql(f"delete from {table}")

    assert deployed.steps("--refresh") == lost
    deployed.up()

    after = deployed.output("echo")
    assert (after["id"] == before["id"]) == (table == "api_tokens")
    assert deployed.dify.key_works(after["key"])


def test_emptied_database_is_claimed_again(deployed: ConsoleProgram) -> None:
    deployed.dify.empty()

    changes = deployed.up()

    assert changes["create"] == 3
    assert deployed.dify.key_works(deployed.output("echo")["key"])
    assert deployed.dify.login_failures() == 0


def test_instance_of_a_stranger_is_a_clear_error(program: ConsoleProgram) -> None:
    stranger = program.dify.console(email="stranger@example.com", password="Strange-password-1")
    stranger.claim("stranger", program.dify.init_password)

    failed = program.try_up()

    assert failed.code != 0
    assert "was claimed with another account" in failed.output
    assert "Two solutions: set dify:adminEmail" in failed.output
    assert program.dify.password not in failed.output
    assert program.dify.login_failures() == 1
    assert program.dify.sql("select count(*) from apps") == "0"


def test_changed_password_and_name_are_changed_in_dify(deployed: ConsoleProgram) -> None:
    before = deployed.output("echo")
    new = "Another-password-2"
    deployed.set_secret("password", new)
    deployed.name = "operator"

    deployed.up()

    assert deployed.dify.console(password=new).sign_in().cookies
    assert deployed.dify.sql("select name from accounts") == "operator"
    assert deployed.output("echo") == before
    assert deployed.dify.login_failures() == 0
    assert set(deployed.up()) == {"same"}


def test_password_changed_in_the_console_fails_until_the_setting_follows(deployed: ConsoleProgram) -> None:
    new = "Another-password-2"
    deployed.dify.console().change_password(new)

    failed = deployed.try_up()

    assert failed.code != 0
    assert "the password was changed in the console" in failed.output
    assert deployed.dify.login_failures() == 1

    deployed.set_secret("password", new)
    deployed.up()
    assert deployed.steps("--refresh") == {}


def test_new_email_needs_the_console(deployed: ConsoleProgram) -> None:
    deployed.email = "other@example.com"

    failed = deployed.try_up()

    assert failed.code != 0
    assert "dify:adminEmail: other@example.com: the admin is admin@example.com" in failed.output

    deployed.dify.sql("update accounts set email = 'other@example.com'")
    deployed.up()
    assert deployed.steps("--refresh") == {}


def test_database_that_is_away_does_not_fail_a_refresh(deployed: ConsoleProgram) -> None:
    database = deployed.dify.client.containers.get(f"{deployed.dify.prefix}-postgres")
    database.stop()
    try:
        refreshed = deployed.pulumi("refresh", "--yes", "--skip-preview")
    finally:
        database.start()
        deployed.dify.wait(deployed.dify.answers, "api")

    assert refreshed.code == 0, refreshed.output
    assert "assumed to be unchanged" in refreshed.output
    assert refreshed.seconds < 60
    assert deployed.steps() == {}


def test_destroy_works_without_api_and_nothing_piles_up(deployed: ConsoleProgram) -> None:
    before = deployed.output("echo")
    deployed.dify.client.containers.get(deployed.dify.api).remove(force=True)
    try:
        destroyed = deployed.destroy()
    finally:
        deployed.dify.start_api()

    assert f"there is no container {deployed.dify.api}" in destroyed.output
    assert "stays in Dify's database" in destroyed.output
    deployed.up()
    after = deployed.output("echo")
    assert after["id"] == before["id"]
    assert len(deployed.dify.console().keys(after["id"])) == 1
    assert not deployed.dify.key_works(before["key"])


def test_app_is_deleted_when_it_is_not_to_be_kept(program: ConsoleProgram) -> None:
    program.keep = False
    program.up()

    program.destroy()

    assert program.dify.sql("select count(*) from apps") == "0"


def logins(program: ConsoleProgram) -> int:
    """Return the number of sign-ins in api's log."""
    logs: Any = program.dify.client.containers.get(program.dify.api).logs()
    return int(logs.decode().count("POST /console/api/login "))


def test_two_programs_worth_of_apps_sign_in_once(program: ConsoleProgram) -> None:
    program.apps = {f"echo-{number}": ECHO for number in range(4)}
    before = logins(program)

    program.up()

    assert len({program.output(name)["id"] for name in program.apps}) == 4
    assert logins(program) - before == 1
