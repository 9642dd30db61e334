"""What is cleaned up before Pulumi runs, and what is left alone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dify_kit.containers.docker_host import Container, Network
from dify_kit.engine.processes import VARIABLE, Run
from dify_kit.engine.recovery import end_earlier_run, examine, recover, release_stale_lock
from dify_kit.engine.state import StackState
from dify_kit.errors import KitError
from tests.unit.cli.conftest import Machine

STACK_URN = "urn:pulumi:dev::dify::pulumi:pulumi:Stack::dify-dev"


def container(
    service: str, *, job: bool = False, state: str = "running", health: str = "", code: int = 0
) -> Container:
    return Container(
        id=f"{service}-id",
        name=f"dify-dev-{service}",
        service=service,
        job=job,
        state=state,
        health=health,
        exit_code=code,
    )


def resource(identity: str) -> dict[str, Any]:
    return {"urn": f"urn:pulumi:dev::dify::t::{identity}", "type": "t", "id": identity}


def pending(name: str, kind: str = "creating") -> dict[str, Any]:
    return {
        "type": kind,
        "resource": {"urn": f"urn:pulumi:dev::dify::docker:index/container:Container::{name}"},
    }


@pytest.mark.parametrize(
    ("seen", "wrong"),
    [
        (container("api", health="healthy"), ""),
        (container("api", health="starting"), ""),
        (container("api"), ""),
        (container("api", health="unhealthy"), "is unhealthy"),
        (container("api", state="created"), "is created"),
        (container("api", state="exited"), "is exited with exit code 0"),
        (container("api", state="exited", code=7), "is exited with exit code 7"),
        (container("api", state="restarting"), "is restarting"),
        (container("api", state="dead"), "is dead"),
        (container("api", state="paused"), "is paused"),
        (container("migration", job=True, state="exited"), ""),
        (container("migration", job=True, state="exited", code=1), "failed with exit code 1"),
        (container("migration", job=True), ""),
        (container("migration", job=True, state="created"), "is created"),
    ],
)
def test_state_of_a_container(seen: Container, wrong: str) -> None:
    assert seen.sick() == wrong


def test_objects_outside_the_state_are_orphans_not_sick() -> None:
    state = StackState.parse({"resources": [resource("api-id"), resource("net-1")]})

    found = examine(
        state,
        [container("api", health="unhealthy"), container("web", state="exited")],
        [Network(id="net-1", name="dify-dev-app"), Network(id="net-2", name="dify-dev-data")],
    )

    assert [one.service for one in found.orphans] == ["web"]
    assert [one.id for one in found.orphan_networks] == ["net-2"]
    assert [(one.service, wrong) for one, wrong in found.sick] == [("api", "is unhealthy")]


def test_stack_in_order_costs_no_pulumi_call(machine: Machine) -> None:
    machine.state(resources=[resource("api-id")])
    machine.engine.stack_containers = [container("api", health="healthy")]

    recover(machine.pulumi(), machine.engine, deploying=True)

    assert machine.calls() == []
    assert machine.engine.removed == []


def test_sick_containers_go_before_an_up_and_stay_before_a_down(machine: Machine) -> None:
    machine.state(resources=[resource(f"{name}-id") for name in ("api", "web", "migration")])
    seen = [
        container("api", health="unhealthy"),
        container("web", state="exited"),
        container("migration", job=True, state="exited", code=1),
    ]
    machine.engine.stack_containers = list(seen)
    recover(machine.pulumi(), machine.engine, deploying=False)
    untouched = list(machine.engine.removed)

    recover(machine.pulumi(), machine.engine, deploying=True)

    assert untouched == []
    assert machine.engine.removed == ["stop api-id", "web-id", "migration-id"]


def test_cut_off_run_is_cleaned_up_in_order(machine: Machine) -> None:
    machine.state(resources=[resource("db-id")], pending=[pending("api"), pending("db", "deleting")])
    machine.engine.stack_containers = [container("db"), container("api")]
    machine.engine.stack_networks = [Network(id="net-9", name="dify-dev-app")]

    recover(machine.pulumi(), machine.engine, deploying=True)

    assert machine.engine.removed == ["api-id", "net-9"]
    [refresh] = machine.calls("refresh")
    assert "--clear-pending-creates" in refresh["args"]


def test_failing_refresh_stops_with_its_reason(machine: Machine) -> None:
    machine.state(pending=[pending("api")])
    machine.play(refresh={"code": 1, "stdout": "error: the provider is gone\n"})

    with pytest.raises(KitError, match="the provider is gone"):
        recover(machine.pulumi(), machine.engine, deploying=True)


def write_lock(machine: Machine, pid: int, host: str) -> None:
    directory = machine.home / "state" / ".pulumi" / "locks" / "organization" / "dify" / "dev"
    directory.mkdir(parents=True, exist_ok=True)
    content = {"pid": pid, "username": "me", "hostname": host, "timestamp": "2026-01-01T00:00:00Z"}
    (directory / "some-id.json").write_text(json.dumps(content))


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(timeout=10)
    return process.pid


def test_lock_of_a_dead_process_is_cancelled(machine: Machine) -> None:
    write_lock(machine, dead_pid(), socket.gethostname())

    release_stale_lock(machine.pulumi())

    [cancel] = machine.calls("cancel")
    assert cancel["args"] == ["cancel", "--yes", "--stack", "dev", "--non-interactive"]


def test_lock_whose_pid_is_somebody_elses_by_now_is_cancelled(machine: Machine) -> None:
    write_lock(machine, os.getppid(), socket.gethostname())

    release_stale_lock(machine.pulumi())

    assert len(machine.calls("cancel")) == 1


def test_lock_of_a_living_pulumi_is_respected(machine: Machine) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "pulumi", "up"])
    try:
        write_lock(machine, process.pid, socket.gethostname())
        with pytest.raises(KitError, match=f"process {process.pid}"):
            release_stale_lock(machine.pulumi())
    finally:
        process.kill()
        process.wait(timeout=10)
    assert machine.calls("cancel") == []


def test_lock_from_another_host_is_respected(machine: Machine) -> None:
    write_lock(machine, 1, "another-host")

    with pytest.raises(KitError, match="me@another-host"):
        release_stale_lock(machine.pulumi())


@pytest.fixture
def leftovers() -> Iterator[tuple[Run, list["subprocess.Popen[bytes]"]]]:
    """Start a run whose leader and plugin live on, each in a group of its own, as Pulumi's do."""
    run = Run.new("up")
    environment = os.environ | {VARIABLE: run.token}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(60)"], env=environment, start_new_session=True
        )
        for _ in range(2)
    ]
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and len(run.processes()) < len(processes):
        time.sleep(0.05)
    yield Run(token=run.token, verb="up", pid=processes[0].pid), processes
    for process in processes:
        process.kill()
        process.wait(timeout=10)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")  # noqa: PTH112  # at import
def test_processes_of_a_cut_off_run_are_ended_the_leader_politely(
    machine: Machine, leftovers: tuple[Run, list["subprocess.Popen[bytes]"]]
) -> None:
    run, processes = leftovers
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    pulumi = machine.pulumi()
    record = machine.home / "runs" / "dev.json"
    run.record(record, run.pid)
    try:
        end_earlier_run(pulumi)

        assert [process.wait(timeout=10) for process in processes] == [-signal.SIGTERM, -signal.SIGKILL]
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait(timeout=10)
    assert not record.exists()


def test_record_of_a_run_that_left_nothing_is_dropped(machine: Machine) -> None:
    pulumi = machine.pulumi()
    record = machine.home / "runs" / "dev.json"
    Run.new("up").record(record, dead_pid())

    end_earlier_run(pulumi)

    assert not record.exists()


def test_damaged_record_is_ignored(machine: Machine) -> None:
    pulumi = machine.pulumi()
    (machine.home / "runs" / "dev.json").write_text("{")

    end_earlier_run(pulumi)


def test_state_of_a_stack_is_read_without_pulumi(machine: Machine) -> None:
    secret = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "v1:x"}
    stack = {
        "urn": STACK_URN,
        "type": "pulumi:pulumi:Stack",
        "outputs": {"publicUrl": "http://x", "appKeys": secret},
    }
    machine.state(resources=[stack, resource("a-id")], pending=[pending("b"), pending("c", "updating")])

    state = machine.pulumi().state()

    assert state.outputs == {"publicUrl": "http://x"}
    assert state.ids == {"a-id"}
    assert [urn.rsplit("::", 1)[-1] for urn in state.pending_creates] == ["b"]
    assert [urn.rsplit("::", 1)[-1] for urn in state.pending_others] == ["c"]
    assert machine.calls() == []


def test_unreadable_state_names_the_command_that_rebuilds_it(machine: Machine) -> None:
    machine.state().write_text("{")

    with pytest.raises(KitError) as caught:
        machine.pulumi().state()

    assert "state rebuild --stack dev" in caught.value.hint


LOCKED = (
    "error: the stack is currently locked by 1 lock(s). Either wait for the other process(es) to end or delete the "
    "lock file with `pulumi cancel`.\n"
    "  s3://bucket/.pulumi/locks/x.json: created by ann@laptop (pid 4242) at 2026-11-30T07:00:00Z\n"
)
BUSY = "error: [409] Conflict: Another update is currently in progress.\n"
FREE = "error: no resource named 'urn:pulumi:dev::dify::dify-kit-none::dify-kit-none' found\n"


@pytest.fixture
def elsewhere(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Make a machine whose stack has its state in a bucket, and an engine with a container that is not in it."""
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://bucket")
    machine.engine.stack_containers = [container("api"), container("web")]
    return machine


def known(monkeypatch: pytest.MonkeyPatch, *states: set[str]) -> None:
    """Let the state have these containers, one look after the other."""
    looks = iter([StackState(ids=frozenset(f"{service}-id" for service in state)) for state in states])
    monkeypatch.setattr("dify_kit.engine.cli.Pulumi.state", lambda _pulumi: next(looks))


@pytest.mark.parametrize("words", [LOCKED, BUSY])
def test_what_a_run_on_another_machine_creates_stays(
    elsewhere: Machine, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    known(monkeypatch, {"api"})
    elsewhere.play(refresh={"code": 255, "stderr": words})

    with pytest.raises(KitError, match="another run works on stack dev") as caught:
        recover(elsewhere.pulumi(), elsewhere.engine, deploying=True)

    assert words.splitlines()[-1].removeprefix("error: ").strip() in str(caught.value)
    assert "pulumi cancel" in caught.value.hint
    assert elsewhere.engine.removed == []


def test_what_a_run_on_another_machine_has_created_by_now_stays(
    elsewhere: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch, {"api"}, {"api", "web"})
    elsewhere.play(refresh={"code": 255, "stderr": FREE})

    recover(elsewhere.pulumi(), elsewhere.engine, deploying=True)

    assert elsewhere.engine.removed == []


def test_what_no_run_accounts_for_is_removed(elsewhere: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, {"api"}, {"api"})
    elsewhere.play(refresh={"code": 255, "stderr": FREE})

    recover(elsewhere.pulumi(), elsewhere.engine, deploying=True)

    assert elsewhere.engine.removed == ["web-id"]


def test_a_stack_in_order_is_not_locked_to_look_at_it(
    elsewhere: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch, {"api", "web"})

    recover(elsewhere.pulumi(), elsewhere.engine, deploying=True)

    assert elsewhere.calls("refresh") == []


def test_backend_elsewhere_is_asked_by_export(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://bucket")
    machine.play(stack={"stdout": json.dumps({"deployment": {"resources": [resource("a-id")]}})})

    assert machine.pulumi().state().ids == {"a-id"}
