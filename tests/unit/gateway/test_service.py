"""Following the configuration: switched as a whole, kept when the new one is broken, reported in both cases."""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from dify_gateway import keys, service, workers
from support.gateway import ACME_KEY, GLOBEX_KEY, OTHER_SECRET, SECRET, documents
from tests.unit.gateway.world import World, ask, make_world, write_revision


def test_a_valid_token_gets_the_headers_for_nginx(world: World) -> None:
    result = world.verify("Bearer " + world.issued())

    assert result.status == 200
    assert result.headers == {
        "Content-Type": "application/json",
        "Content-Length": "0",
        "X-Auth-Sub": "acme-app",
        "X-Auth-Tenant": "acme",
        "X-Auth-Scopes": "chat files",
        "X-Auth-Limits": "small",
        "X-Auth-Upstream": ACME_KEY,
        "Cache-Control": "max-age=3",
    }


def test_each_tenant_gets_its_own_key(world: World) -> None:
    result = world.verify("Bearer " + world.issued("globex-app", OTHER_SECRET))

    assert result.headers["X-Auth-Tenant"] == "globex"
    assert result.headers["X-Auth-Upstream"] == GLOBEX_KEY


@pytest.mark.parametrize(("left", "expected"), [(2.9, {"max-age=1", "no-store"}), (60, {"max-age=3"})])
def test_a_result_is_not_cached_past_the_tokens_expiry(world: World, left: float, expected: set[str]) -> None:
    token = world.forge.with_claims(iat=world.forge.now - 50, exp=int(time.time() + left))

    assert world.verify(f"Bearer {token}").headers["Cache-Control"] in expected


def test_a_result_of_the_last_second_is_not_cached(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    token = world.forge.with_claims(iat=world.forge.now - 50, exp=world.forge.now + 10)
    monkeypatch.setattr(time, "time", lambda: world.forge.now + 9.5)

    result = world.verify(f"Bearer {token}")

    assert (result.status, result.headers["Cache-Control"]) == (200, "no-store")


@pytest.mark.parametrize(("path", "method", "status"), [("/", "GET", 404), ("/verify", "POST", 405)])
def test_other_internal_requests(world: World, path: str, method: str, status: int) -> None:
    assert ask(world.service, "Bearer x", path, method).status == status


def test_a_crash_is_no_pass(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_args: Any) -> None:
        raise ZeroDivisionError("secret text")

    monkeypatch.setattr("dify_gateway.tokens.verify", broken)

    result = world.verify("Bearer " + world.forge.valid())

    assert (result.status, result.headers["Cache-Control"]) == (500, "no-store")
    printed = capsys.readouterr().out
    assert "ZeroDivisionError" in printed
    assert "secret text" not in printed


class TestChanges:
    """The effect of a new configuration on tokens that were issued before it."""

    def test_nothing_new(self, world: World) -> None:
        assert not world.service.follow()

    def test_a_removed_client(self, world: World) -> None:
        token = world.issued()
        files = documents()
        del files["clients.json"]["clients"]["acme-app"]

        assert world.switch("2", files)

        assert world.verify(f"Bearer {token}").status == 401
        assert world.token().status_code == 401

    def test_a_disabled_client(self, world: World) -> None:
        token = world.issued()
        files = documents()
        files["clients.json"]["clients"]["acme-app"]["disabled"] = True
        world.switch("2", files)

        assert world.verify(f"Bearer {token}").status == 401

    def test_a_removed_tenant(self, world: World) -> None:
        token = world.issued("globex-app", OTHER_SECRET)
        files = documents()
        del files["tenants.json"]["tenants"]["globex"]
        del files["clients.json"]["clients"]["globex-app"]
        world.switch("2", files)

        assert world.verify(f"Bearer {token}").status == 401

    def test_a_client_that_moved_to_another_tenant(self, world: World) -> None:
        token = world.issued()
        files = documents()
        files["clients.json"]["clients"]["acme-app"]["tenant"] = "globex"
        world.switch("2", files)

        assert world.verify(f"Bearer {token}").status == 401
        assert world.verify("Bearer " + world.issued()).headers["X-Auth-Upstream"] == GLOBEX_KEY

    def test_a_scope_that_the_client_lost(self, world: World) -> None:
        token = world.issued()
        files = documents()
        files["clients.json"]["clients"]["acme-app"]["scopes"] = ["files", "llm"]
        world.switch("2", files)

        assert world.verify(f"Bearer {token}").headers["X-Auth-Scopes"] == "files"

    def test_all_tokens_of_a_client_can_be_ended(self, world: World) -> None:
        token = world.forge.with_claims(iat=world.forge.now - 10)
        files = documents()
        files["clients.json"]["clients"]["acme-app"]["not_before"] = world.forge.now
        world.switch("2", files)

        assert world.verify(f"Bearer {token}").status == 401
        assert world.verify("Bearer " + world.issued()).status == 200

    def test_a_new_app_key(self, world: World) -> None:
        token = world.issued()
        files = documents()
        files["tenants.json"]["tenants"]["acme"]["app_key"] = "app-another0123456"
        world.switch("2", files)

        assert world.verify(f"Bearer {token}").headers["X-Auth-Upstream"] == "app-another0123456"

    def test_a_file_that_changed_in_place(self, world: World) -> None:
        files = documents()
        del files["clients.json"]["clients"]["acme-app"]
        (world.directory / "current" / "clients.json").write_text(json.dumps(files["clients.json"]))

        assert world.service.follow()
        assert world.token().status_code == 401

    def test_redis_moves(self, world: World) -> None:
        files = documents()
        files["config.json"]["redis"]["prefix"] = "other:"
        world.switch("2", files)

        token = world.issued()

        assert world.verify(f"Bearer {token}").status == 200
        assert len(world.states) == 2

    def test_the_same_redis_is_kept(self, world: World) -> None:
        world.switch("2", documents())

        assert len(world.states) == 1


@pytest.mark.parametrize("file", ["config.json", "clients.json", "tenants.json", "keys.json"])
def test_a_broken_file_keeps_the_old_configuration(
    world: World, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    token = world.issued()
    capsys.readouterr()

    assert not world.switch("2", {**documents(), file: "{"})

    assert world.verify(f"Bearer {token}").status == 200
    assert world.token().status_code == 200
    health = world.verify(None, "/healthz")
    assert (health.status, health.body["status"]) == (200, "degraded")
    assert any(problem.startswith(f"{file}: is not JSON") for problem in health.body["problems"])
    assert health.body["revisions"] == ["1"]
    [line] = [
        json.loads(text) for text in capsys.readouterr().out.splitlines() if "configuration refused" in text
    ]
    assert line["problem"].startswith(f"{file}: ")
    assert line["still_serving"] == "1"

    assert world.switch("3", documents())
    assert world.verify(None, "/healthz").body["status"] == "ok"


def test_an_unforeseen_problem_keeps_the_old_configuration(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("dify_gateway.config.load", broken)

    assert not world.switch("2", documents())

    assert world.verify("Bearer " + world.forge.valid()).status == 200
    assert world.verify(None, "/healthz").body["problems"] == ["ZeroDivisionError"]


def test_a_broken_file_is_complained_about_once(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.switch("2", {**documents(), "keys.json": "{"})
    for _ in range(5):
        world.service.follow()

    assert capsys.readouterr().out.count("configuration refused") == 1


def test_nothing_readable_at_the_start(tmp_path: Path) -> None:
    world = make_world(tmp_path / "config", {**documents(), "keys.json": "{"})

    health = world.verify(None, "/healthz")
    assert (health.status, health.body["status"]) == (503, "down")
    assert any(problem.startswith("keys.json: ") for problem in health.body["problems"])
    result = world.verify("Bearer " + world.forge.valid())
    assert (result.status, result.headers["Cache-Control"]) == (503, "no-store")
    assert world.token().status_code == 503

    assert world.switch("2", documents())
    assert world.token().status_code == 200


def test_an_empty_directory_at_the_start(tmp_path: Path) -> None:
    empty = service.Service(tmp_path)

    assert not empty.follow()
    assert ask(empty, None, "/healthz").status == 503


def test_files_without_a_link(tmp_path: Path) -> None:
    for name, content in documents().items():
        (tmp_path / name).write_text(json.dumps(content))
    plain = service.Service(tmp_path)

    assert plain.follow()


def test_health_when_all_is_well(world: World) -> None:
    health = world.verify(None, "/healthz")

    assert health.status == 200
    assert health.headers["Cache-Control"] == "no-store"
    assert health.body == {
        "status": "ok",
        "problems": [],
        "revisions": ["1"],
        "workers": 1,
        "clients": 6,
        "tenants": 2,
        "keys": 1,
    }


def test_health_tells_of_other_workers(world: World, run_directory: Path) -> None:
    alive, dead = os.getppid(), 2**22 - 1
    for pid in (alive, dead):
        (run_directory / str(pid)).write_text(
            json.dumps({"revision": "0", "problem": "clients.json: broken"})
        )

    health = world.verify(None, "/healthz")

    assert health.body["revisions"] == ["0", "1"]
    assert health.body["workers"] == 2
    assert health.body["problems"] == ["clients.json: broken"]
    assert not (run_directory / str(dead)).exists()
    assert {each["worker"] for each in workers.reports()} == {os.getpid(), alive}


class TestOtherWorker:
    """Another worker has read the new configuration already; this one has not."""

    def test_its_tokens_are_let_in(self, world: World) -> None:
        files = documents()
        files["keys.json"] = keys.rotate(files["keys.json"])
        files["clients.json"]["clients"]["new"] = files["clients.json"]["clients"]["acme-app"]
        write_revision(world.directory, "2", files)
        other = make_world_beside(world)

        token = other.issued("new", SECRET)

        # No poll has happened here: the check itself reads the new configuration before it refuses.
        assert world.service.loaded.configuration.revision == "1"
        assert world.verify(f"Bearer {token}").status == 200

    def test_a_forged_kid_makes_nobody_read_again(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read: list[str] = []
        monkeypatch.setattr("dify_gateway.config.load", lambda *_args: read.append("read"))

        statuses = {world.verify("Bearer " + world.forge.with_header(kid="x")).status for _ in range(20)}

        assert statuses == {401}
        assert read == []


def make_world_beside(world: World) -> World:
    """Return a second worker of the same installation."""
    states: list[Any] = []
    other = service.Service(world.directory, connect=world.service._connect)
    other.follow()
    return World(world.directory, other, world.redis_server, world.forge, states)


def test_the_configuration_is_followed_in_the_background(world: World) -> None:
    world.service.start()
    try:
        files = documents()
        del files["clients.json"]["clients"]["acme-app"]
        write_revision(world.directory, "2", files)
        switched = time.monotonic()
        while world.service.loaded.configuration.revision != "2":
            assert time.monotonic() - switched < 2, "a switch must be seen within a second or two"
            time.sleep(0.01)
    finally:
        world.service.stop()
    assert world.token().status_code == 401


def test_no_request_sees_a_mixture(world: World) -> None:
    """Two releases whose files fit together only among themselves, switched under load."""
    failures: list[str] = []
    stop = threading.Event()
    client = world.public
    form = {"grant_type": "client_credentials", "client_id": "acme-app", "client_secret": SECRET}

    def call() -> None:
        while not stop.is_set():
            answer = client.post("/oauth/token", data=form)
            result = world.verify("Bearer " + answer.json["access_token"]) if answer.json else None
            if answer.status_code != 200 or result is None or result.status != 200:
                failures.append(answer.text)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    files = documents()
    for number in range(2, 12):
        files["keys.json"] = keys.rotate(files["keys.json"])
        world.switch(str(number), files)
        time.sleep(0.02)
    stop.set()
    for thread in threads:
        thread.join(timeout=10)

    assert failures == []


def test_a_failing_thread_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def broken() -> bool:
        calls.append(1)
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(service, "POLL_SECONDS", 0.01)
    threads = threading.Thread(target=world.service._repeat, args=("test", broken, 0.01), daemon=True)
    threads.start()
    deadline = time.monotonic() + 5
    while len(calls) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    world.service.stop()
    threads.join(timeout=5)

    assert not threads.is_alive()


@pytest.mark.parametrize(
    ("gap", "status"), [(" ", 200), ("  ", 200), (" " * 20, 200), ("\t", 401), (" \t", 401), ("", 401)]
)
def test_blanks_before_a_token_are_those_of_the_standard(world: World, gap: str, status: int) -> None:
    assert world.verify(f"Bearer{gap}{world.issued()}").status == status
