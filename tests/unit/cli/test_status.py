"""`dify-kit status`: one screen, an exit code that means something, and nothing that changes."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import pytest
from typer.testing import CliRunner, Result

from dify_kit.__main__ import app
from dify_kit.checks import published
from dify_kit.commands import status as command
from dify_kit.containers.docker_host import Container
from dify_kit.engine.state import FileBackend, Update
from dify_kit.errors import KitError
from dify_kit.stack import unfinished
from dify_kit.upgrade.journal import Journal, Kind, State, Step
from dify_kit.upgrade.path import Written
from dify_kit.watch import certificate, status
from dify_kit.watch.limits import limits_of
from dify_kit.watch.report import Certificate
from infra import hints
from infra.catalogue.route_groups import TABLE
from infra.engine import runtime
from infra.engine.runtime import Ran, WorkloadError
from support.certificates import issue
from tests.unit.cli.conftest import Machine
from tests.unit.served import served

MEBIBYTE = 1024 * 1024
ENDED = datetime(2026, 11, 29, 20, 14, tzinfo=UTC)
REVISION = {"nginx": "edge-rev-abc123", "gateway": "gateway-rev"}
SERVICES = ("db-postgres", "redis", "api", "worker", "gateway", "nginx")
LIMITS = {"requests": 5.0, "seconds": 60.0, "burst": 2.0, "concurrent": 5.0}
OUTPUTS: Mapping[str, Any] = {
    "release": "1.17.1",
    "kit": "0.1.0",
    "images": "local",
    "standIn": True,
    "publicUrl": "http://localhost:8080",
    "containers": {name: f"dify-dev-{name}" for name in SERVICES},
    "jobs": {"migration": "dify-dev-migration"},
    "edgeRevision": "edge-rev",
    "gatewayRevision": "gateway-rev",
    "tls": {"mode": "off", "httpsPort": None},
    "rateLimits": {"dryRun": False, "groups": {"v1": LIMITS, "api": {"requests": 0.0, "concurrent": 0.0}}},
    "llm": {"url": "http://localhost:8080/llm/v1", "limits": {"requests": 60, "seconds": 60, "burst": 0}},
}


class FakeRuntime:
    """A container that answers as nginx and the gateway do, or that is gone."""

    broken: frozenset[str] = frozenset()
    memory = 100 * MEBIBYTE
    failures: Mapping[str, Any] = {}
    # Whether nginx has a configuration that counts requests.
    counts = False

    def __init__(self, reference: str, _timeout: float) -> None:
        self._service = reference.removeprefix("dify-dev-").removeprefix("id-")
        if self._service in self.broken:
            raise WorkloadError("gone")

    def __enter__(self) -> Self:  # noqa: D105
        return self

    def __exit__(  # noqa: D105
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def memory_bytes(self) -> int:
        return self.memory

    def run(self, command: Sequence[str], *, root: bool = False) -> Ran:
        assert not root, "a look changes nothing"
        url = command[-1]
        if url.endswith("/revision"):
            return Ran(code=0, output=json.dumps({"revision": REVISION["nginx"]}))
        if url.endswith("/usage"):
            month = f"{datetime.now(tz=UTC):%Y-%m}"
            return Ran(code=0, output=json.dumps({"months": {}, "upstreams": {month: self.failures}}))
        if url.endswith("/metrics"):
            return Ran(code=0, output=served()) if self.counts else Ran(code=22, output="404")
        assert url.endswith("/healthz")
        body = {"revisions": [REVISION["gateway"]], "workers": 2, "problems": []}
        return Ran(code=0, output=json.dumps(body))


def container(service: str, **more: Any) -> Container:
    given = {"job": service == "migration", "state": "exited" if service == "migration" else "running"}
    return Container(
        **{
            "id": f"id-{service}",
            "name": f"dify-dev-{service}",
            "service": service,
            "health": "" if service == "migration" else "healthy",
            "image": f"sha256:{service}",
            "memory_limit": 512 * MEBIBYTE,
            **given,
            **more,
        }
    )


def resources(outputs: Mapping[str, Any], ids: Sequence[str]) -> list[dict[str, Any]]:
    stack = {"urn": "urn:s", "type": "pulumi:pulumi:Stack", "outputs": dict(outputs)}
    return [stack, *({"urn": f"urn:{one}", "type": "t", "id": one} for one in ids)]


def history(machine: Machine, kind: str, result: str, number: int = 1) -> None:
    directory = machine.home / "state" / ".pulumi" / "history" / "dify" / "dev"
    directory.mkdir(parents=True, exist_ok=True)
    content = {
        "kind": kind,
        "result": result,
        "endTime": int(ENDED.timestamp()),
        "config": {"dify:secretKey": {"value": "v1:ciphertext", "secure": True}},
        "resourceChanges": {"same": 90, "update": 2},
    }
    (directory / f"dev-{number:019}.history.json").write_text(json.dumps(content))
    (directory / f"dev-{number:019}.history.json.attrs").write_text("{}")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["status", *arguments])


def set_containers(machine: Machine, *changed: Container, without: Sequence[str] = ()) -> None:
    there = {one.service: one for one in machine.engine.stack_containers}
    there |= {one.service: one for one in changed}
    machine.engine.stack_containers = [one for name, one in there.items() if name not in without]


@pytest.fixture(autouse=True)
def _around(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "DockerEngine", lambda: machine.engine)
    monkeypatch.setattr(runtime, "runtime", FakeRuntime)
    monkeypatch.setattr("infra.resources.revision_container.runtime", FakeRuntime)
    monkeypatch.setattr(status, "check_settings", _settings_checked)
    monkeypatch.setattr(published, "problem", lambda _where: "")


def _settings_checked(files: Any, environ: Any) -> Any:
    """Read the settings without decrypting: those of these tests have no real ciphertexts."""
    from dify_kit.stack import settings  # noqa: PLC0415

    assert environ is os.environ
    return settings.read(files), []


@pytest.fixture
def stack(machine: Machine) -> Machine:
    """Make a stack that is deployed and healthy."""
    machine.configure(
        oauth={"enabled": True, "tenants": {"a": {"app": "echo-chat"}}}, gatewaySecret={"secure": "v1:x"}
    )
    machine.engine.stack_containers = [container(one) for one in (*SERVICES, "migration")]
    machine.engine.tags = {f"sha256:{one}": f"dify-kit/{one}:1" for one in SERVICES}
    machine.state(resources=resources(OUTPUTS, [one.id for one in machine.engine.stack_containers]))
    history(machine, "update", "succeeded", 1)
    history(machine, "refresh", "failed", 2)
    return machine


@pytest.mark.usefixtures("stack")
def test_a_healthy_stack_exits_with_0_and_says_everything() -> None:
    done = run()

    assert done.exit_code == 0, done.output
    for part in (
        "stack dev",
        "Dify 1.17.1, images: local (stand-ins",
        "deployed by 0.1.0",
        "http://localhost:8080, 127.0.0.1:8080 answers",
        "succeeded, 2026-11-29 20:14 UTC",
        "nginx edge-rev-abc123, gateway gateway-rev",
        "v1: 5 + 2 in 60 s, 5 at a time",
        "llm: 60 in 60 s for a caller",
        "no failure this month",
        "100 of 512 MiB",
        "dify-kit/api:1",
        "exited (0)",
        "no problem found",
    ):
        assert part in done.stdout, part


@pytest.mark.usefixtures("stack")
def test_the_document_has_the_same() -> None:
    found = json.loads(run("--json").stdout)

    assert found["ok"] is True
    assert found["problems"] == []
    assert [one["service"] for one in found["services"]] == [
        "db-postgres", "redis", "migration", "api", "worker", "gateway", "nginx",
    ]  # fmt: skip
    api = next(one for one in found["services"] if one["service"] == "api")
    assert api["memory"] == 100 * MEBIBYTE
    assert api["memoryLimit"] == 512 * MEBIBYTE
    assert found["revisions"]["nginx"] == {"deployed": "edge-rev", "running": "edge-rev-abc123", "same": True}
    assert found["lastUpdate"] == {
        "result": "succeeded", "ended": ENDED.isoformat(), "changes": {"same": 90, "update": 2}
    }  # fmt: skip
    assert found["address"]["answers"] is True


def test_nothing_is_started_or_changed(stack: Machine) -> None:
    before = {path: path.stat().st_mtime_ns for path in stack.home.rglob("*")}

    run()

    assert stack.engine.removed == stack.engine.restarted == stack.engine.stopped == []
    assert stack.calls() == []
    assert {path: path.stat().st_mtime_ns for path in stack.home.rglob("*")} == before


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"state": "exited", "exit_code": 137},
            "worker is exited with exit code 137: it was stopped by hand",
        ),
        ({"state": "restarting"}, "worker is restarting"),
        ({"state": "paused"}, "worker is paused"),
        ({"health": "unhealthy"}, "worker is unhealthy"),
        ({"id": "another"}, "worker is not the one that the state has"),
    ],
)
def test_a_service_that_is_not_well_is_named_with_a_hint(
    stack: Machine, changed: dict[str, Any], said: str
) -> None:
    set_containers(stack, container("worker", **changed))

    done = run()

    assert done.exit_code == 1
    assert said in done.stdout
    assert f"hint: {hints.kit('logs', 'worker', '--tail', '50', stack='dev')} shows why" in done.stdout
    assert "no problem found" not in done.stdout


def test_a_service_that_is_starting_or_was_restarted_is_shown_and_no_problem(stack: Machine) -> None:
    set_containers(stack, container("worker", health="starting", restarts=3))

    found = json.loads(run("--json").stdout)

    worker = next(one for one in found["services"] if one["service"] == "worker")
    assert (found["ok"], worker["health"], worker["restarts"]) == (True, "starting", 3)


def test_a_missing_container_is_drift(stack: Machine) -> None:
    set_containers(stack, without=["worker"])

    done = run()

    assert done.exit_code == 1
    assert "worker has no container" in done.stdout
    assert f"{hints.kit('up', stack='dev')} repairs it" in done.stdout


def test_a_container_that_the_state_does_not_have_is_drift(stack: Machine) -> None:
    set_containers(stack, container("web"))

    done = run()

    assert done.exit_code == 1
    assert "web is not in the state" in done.stdout


def test_a_failed_job_is_a_problem(stack: Machine) -> None:
    set_containers(stack, container("migration", exit_code=1))

    done = run()

    assert done.exit_code == 1
    assert "migration failed with exit code 1" in done.stdout


@pytest.mark.usefixtures("stack")
def test_another_revision_than_the_deployed_one_is_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REVISION, "nginx", "other-abc123")
    monkeypatch.setitem(REVISION, "gateway", "")

    done = run()

    assert done.exit_code == 1
    assert "nginx runs revision other-abc123, and edge-rev was deployed" in done.stdout
    assert "gateway names no revision, and gateway-rev was deployed" in done.stdout


@pytest.mark.usefixtures("stack")
def test_a_dead_address_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "problem", lambda _where: "ConnectionRefusedError")

    done = run()

    assert done.exit_code == 1
    assert "127.0.0.1:8080 does not answer: ConnectionRefusedError" in done.stdout
    assert hints.kit("doctor", "--repair", stack="dev") in done.stdout


@pytest.mark.usefixtures("stack")
def test_failures_of_upstreams_are_shown_and_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeRuntime, "failures", {"holysheep": {"429": 3, "504": 1}})

    done = run()

    assert done.exit_code == 0, done.output
    assert "failed this month: holysheep 429 x 3, 504 x 1" in done.stdout


@pytest.mark.usefixtures("stack")
def test_requests_of_the_last_minutes_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = len(TABLE)
    before = run()
    monkeypatch.setattr(FakeRuntime, "counts", True)

    done = run()
    found = json.loads(run("--json").stdout)

    # One of each group was answered, one refused by a limit, and one failed.
    words = f"{groups} with 4xx (429: {groups}), {groups} with 5xx"
    assert "requests" not in before.stdout
    assert words in done.stdout
    assert " in the last " in done.stdout
    assert f"{3 * groups}, {words} since 20" in done.stdout
    assert found["traffic"]["total"] == {
        "requests": 3 * groups, "clientErrors": groups, "tooMany": groups, "closed": 0, "serverErrors": groups
    }  # fmt: skip
    assert "scraped" not in found


@pytest.mark.usefixtures("stack")
def test_containers_that_go_at_this_moment_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeRuntime, "broken", frozenset({"nginx", "api"}))

    done = run()

    assert done.exit_code == 1
    assert "nginx does not tell its revision" in done.stdout
    assert "worker" in done.stdout


def test_a_failed_up_is_a_problem_with_its_log(stack: Machine) -> None:
    history(stack, "update", "failed", 3)

    done = run()

    assert done.exit_code == 1
    assert "the last `up` ended as failed" in done.stdout
    assert str(stack.home / "logs" / "dev-up.log") in done.stdout


@pytest.mark.usefixtures("stack")
def test_the_history_shows_no_setting() -> None:
    assert "ciphertext" not in run("--json").stdout


def test_a_stack_that_is_down_is_not_deployed(machine: Machine) -> None:
    machine.configure()
    machine.state(resources=resources({}, []))

    done = run()

    assert done.exit_code == 1
    assert "stack dev is not deployed" in done.stdout
    assert f"hint: {hints.kit('up', stack='dev')} deploys it" in done.stdout


def test_a_stack_without_settings_is_an_error(machine: Machine) -> None:
    done = run("--stack", "staging")

    assert done.exit_code == 1
    assert "stack staging does not exist on this machine" in done.stderr
    assert not machine.home.exists(), "a look makes no directory"


def test_a_wrong_name_or_option_is_usage(machine: Machine) -> None:
    assert run("--stack", "No_Name").exit_code == 2
    assert run("--no-such-option").exit_code == 2
    assert not machine.home.exists()


@pytest.mark.usefixtures("stack")
def test_an_engine_that_does_not_answer_is_said_and_the_rest_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable() -> None:
        raise KitError("the Docker engine at unix:///x does not answer: refused", "start it")

    monkeypatch.setattr(command, "DockerEngine", unreachable)

    done = run()

    assert done.exit_code == 1
    assert "the Docker engine at unix:///x does not answer" in done.stdout
    assert "hint: start it" in done.stdout
    assert "Dify 1.17.1" in done.stdout
    assert "succeeded, 2026-11-29" in done.stdout


def test_without_the_passphrase_what_needs_no_secret_is_shown(
    stack: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dify_kit.checks.stack import check_settings  # noqa: PLC0415

    monkeypatch.setattr(status, "check_settings", check_settings)
    stored = stack.home / "stacks" / "Pulumi.dev.yaml"
    stored.write_text(
        stored.read_text().replace("v1:salt", _SALT).replace("v1:x", "v1:AAAAAAAAAAAAAAAA:" + "A" * 24)
    )
    (stack.home / "passphrase").unlink()

    done = run()

    assert done.exit_code == 1
    assert f"its secrets are encrypted, and {stack.home / 'passphrase'} is missing" in done.stdout
    assert "restore that file from your backup" in done.stdout
    assert "127.0.0.1:8080 answers" in done.stdout
    assert "dify-kit/api:1" in done.stdout
    assert not (stack.home / "passphrase").exists()


_SALT = "v1:AAAAAAAAAAA=:v1:AAAAAAAAAAAAAAAA:" + "A" * 24


def test_a_damaged_state_is_said(stack: Machine) -> None:
    path = stack.home / "state" / ".pulumi" / "stacks" / "dify" / "dev.json"
    path.write_text("{")

    done = run()

    assert done.exit_code == 1
    assert "the state of stack dev cannot be read" in done.stdout
    assert "api is not in the state" in done.stdout


@pytest.mark.parametrize(
    ("days", "mode", "problem"),
    [
        (200, "selfsigned", ("", "")),
        (5, "acme", ("the certificate ends in 4 days", "logs certbot")),
        (-3, "files", ("the certificate ended on", "set tlsCertificate")),
        (5, "cert-manager", ("the certificate ends in 4 days", "kubectl describe certificate edge")),
        (5, "selfsigned", ("the certificate ends in 4 days", "up --stack dev")),
    ],
)
def test_a_certificate_that_ends_soon_is_a_problem(
    stack: Machine, monkeypatch: pytest.MonkeyPatch, days: int, mode: str, problem: tuple[str, str]
) -> None:
    found = Certificate(
        source=mode, subject="dify.example.com", issuer="a CA", ends=datetime.now(tz=UTC) + timedelta(days=days),
        days_left=days - 1,
    )  # fmt: skip
    monkeypatch.setattr(certificate, "presented", lambda *_: found)
    tls = {"tls": {"mode": mode, "httpsPort": 8443.0}}
    stack.state(resources=resources({**OUTPUTS, **tls}, [one.id for one in stack.engine.stack_containers]))

    done = run()

    assert f"dify.example.com, {days - 1} days left" in done.stdout
    assert done.exit_code == int(any(problem)), done.stdout
    assert all(part in done.stdout for part in problem)


def test_tls_that_does_not_answer_is_a_problem(stack: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr(certificate, "presented", refuse)
    tls = {"tls": {"mode": "acme", "httpsPort": 8443.0}}
    stack.state(resources=resources({**OUTPUTS, **tls}, [one.id for one in stack.engine.stack_containers]))

    done = run()

    assert done.exit_code == 1
    assert "port 8443 presents no certificate: refused" in done.stdout


def test_a_certificate_is_read_as_it_is() -> None:
    import ssl  # noqa: PLC0415

    pair = issue(["dify.example.com"])
    first = pair.pem[: pair.pem.index("-----END CERTIFICATE-----") + 26]
    der = ssl.PEM_cert_to_DER_cert(first)

    found = certificate.read(der, "files", datetime.now(tz=UTC))

    assert "dify.example.com" in found.subject
    assert found.days_left == (found.ends - datetime.now(tz=UTC)).days


def test_limits_that_are_only_counted_say_so() -> None:
    dry = {"rateLimits": {"dryRun": True, "groups": {"v1": LIMITS}}}

    assert limits_of(dry) == {"v1": "5 + 2 in 60 s, 5 at a time (only counted: rateLimits.dryRun)"}
    assert limits_of({}) == {}


def test_updates_of_pulumis_own_output_and_damaged_files_are_read(machine: Machine) -> None:
    machine.files()
    printed = Update.parse({"kind": "update", "result": "succeeded", "endTime": "2026-11-29T20:14:00.000Z"})
    assert printed.ended == ENDED
    history(machine, "update", "succeeded", 1)
    directory = machine.home / "state" / ".pulumi" / "history" / "dify" / "dev"
    (directory / "dev-0000000000000000002.history.json").write_text("{")
    (directory / "dev-0000000000000000003.history.json").write_text("[]")

    backend = FileBackend(root=machine.home / "state", stack="dev")

    assert [one.ended for one in backend.last_updates(5)] == [ENDED]


@pytest.mark.usefixtures("stack")
def test_a_narrow_terminal_shows_every_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    assert all(name in run().stdout for name in SERVICES)


@pytest.mark.usefixtures("stack")
def test_memory_near_its_limit_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeRuntime, "memory", 500 * MEBIBYTE)

    assert "500 of 512 MiB" in run().stdout


def test_containers_show_no_environment() -> None:
    assert "zebra" not in repr(replace(container("api"), secrets=frozenset({"zebra"})))


def upgraded(machine: Machine, state: State, at: int) -> None:
    """Leave the journal of an upgrade from 1.17.0, at a step."""
    Journal(
        stack="dev",
        began="2026-11-30T02:00:00+00:00",
        release="1.17.0",
        weaviate_version="",
        written=Written(release="1.17.0"),
        target="1.17.1",
        steps=(Step(kind=Kind.BACKUP), Step(kind=Kind.MOVE, release="1.17.1"), Step(kind=Kind.SMOKE)),
    ).save(machine.files(), state=state, at=at)


def test_an_upgrade_that_stopped_is_a_problem_with_both_ways(stack: Machine) -> None:
    upgraded(stack, State.RUNNING, 1)

    done = run("--json")

    (problem,) = json.loads(done.stdout)["problems"]
    assert done.exit_code == 1
    assert problem["what"] == (
        "the upgrade to Dify 1.17.1 is not complete: it stopped in step 2 of 3 (deploy Dify 1.17.1)"
    )
    assert hints.kit("upgrade", "1.17.1", stack="dev") in problem["hint"]
    assert hints.kit("rollback", stack="dev") in problem["hint"]


def test_a_rollback_that_stopped_is_a_problem(stack: Machine) -> None:
    upgraded(stack, State.ROLLING_BACK, 2)

    (problem,) = json.loads(run("--json").stdout)["problems"]

    assert problem["what"] == "the way back from Dify 1.17.1 to 1.17.0 is not complete"
    assert problem["hint"].startswith(hints.kit("rollback", stack="dev"))


def test_a_restore_that_stopped_is_a_problem(stack: Machine) -> None:
    unfinished.mark(stack.files(), "/srv/backups/dify-dev.dify-backup")

    (problem,) = json.loads(run("--json").stdout)["problems"]

    assert "did not finish" in problem["what"]
    assert hints.kit("restore", "/srv/backups/dify-dev.dify-backup", stack="dev") in problem["hint"]


def test_a_backup_that_was_cut_off_is_a_problem_and_one_that_runs_is_none(stack: Machine) -> None:
    files = stack.files()
    files.data.backing_up("dev").write_text(json.dumps({"target": "", "stopped": ""}))

    done = run()
    with files.lock():
        busy = run()

    assert done.exit_code == 1
    assert "a backup was cut off" in done.stderr + done.stdout
    assert "up --stack dev puts that in order" in done.stderr + done.stdout
    assert busy.exit_code == 0


def test_a_rotation_that_is_not_deployed_is_a_problem(stack: Machine) -> None:
    ids = [f"id-{service}" for service in (*SERVICES, "migration")]
    stack.configure(secretRotations={"redis": 2, "database": 1})
    stack.state(resources=resources({**OUTPUTS, "secretRotations": {"redis": 1, "database": 1}}, ids))

    done = run()

    shown = done.stderr + done.stdout
    assert done.exit_code == 1
    assert "the rotation of redis is not complete" in shown
    assert "keys rotate redis --stack dev completes it" in shown
    assert "rotation of database" not in shown
    stack.state(resources=resources({**OUTPUTS, "secretRotations": {"redis": 2, "database": 1}}, ids))
    assert run().exit_code == 0


def test_an_upgrade_that_runs_or_is_complete_is_no_problem(stack: Machine) -> None:
    upgraded(stack, State.DONE, 3)
    assert run().exit_code == 0

    upgraded(stack, State.RUNNING, 1)
    with stack.files().lock():
        assert run().exit_code == 0
    assert run().exit_code == 1


# --- backups that are planned ------------------------------------------------------------------------------------


def backed_up(machine: Machine, ago: timedelta) -> None:
    when = (datetime.now(tz=UTC) - ago).isoformat()
    record = machine.files().data.backup("dev")
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({"created": when, "target": "/srv/backups/a"}), encoding="utf-8")


@pytest.mark.parametrize(
    ("hours", "what"),
    [(None, "does not exist"), (50, "is 50 hours old"), (29, ""), (0.1, "")],
)
def test_a_planned_backup_that_is_overdue_is_a_problem(
    stack: Machine, hours: float | None, what: str
) -> None:
    stack.configure(backup={"to": "/srv/backups", "at": "03:30"})
    if hours is not None:
        backed_up(stack, timedelta(hours=hours))

    problems = [
        one["what"] for one in json.loads(run("--json").stdout)["problems"] if "backup" in one["what"]
    ]

    wanted = f"the last backup {what}, and dify:backup plans one each day at 03:30 UTC"
    assert problems == ([wanted] if what else [])


def test_without_a_plan_an_old_backup_is_no_problem(stack: Machine) -> None:
    backed_up(stack, timedelta(days=90))

    assert not [one for one in json.loads(run("--json").stdout)["problems"] if "backup" in one["what"]]
