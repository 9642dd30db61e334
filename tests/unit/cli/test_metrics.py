"""`dify-kit metrics`: what `status` finds, as Prometheus reads it, and the alert rules that use it."""

import threading
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner, Result

from dify_kit.__main__ import app
from dify_kit.errors import KitError
from dify_kit.watch import status
from dify_kit.watch.metrics import StackMetrics
from dify_kit.watch.report import Address, Certificate, LastUpdate, Revision, Service, Status
from dify_kit.watch.serving import serving
from support.ports import free_port
from tests.unit.cli.conftest import Machine

WHEN = datetime(2026, 11, 29, 20, 14, tzinfo=UTC)


def well() -> Status:
    """Return the status of a stack that is well."""
    return Status(
        stack="dev",
        kit="0.1.0",
        deployed=True,
        release="1.17.1",
        images="registry",
        address=Address(url="https://dify.example.com", published="127.0.0.1:443", answers=True),
        certificate=Certificate(
            source="acme", subject="dify.example.com", issuer="CA", ends=WHEN, days_left=40
        ),
        services=[
            Service(
                service="api",
                container="dify-dev-api",
                job=False,
                state="running",
                restarts=2,
                memory=500,
                memory_limit=1000,
                wanted=2,
                ready=1,
            ),
            Service(service="migration", container="dify-dev-migration", job=True, state="exited"),
        ],
        revisions={"nginx": Revision(deployed="a", running="a-1")},
        last_update=LastUpdate(result="succeeded", ended=WHEN),
        last_backup=WHEN,
        upstreams={"holysheep": {"500": 3}},
    )


def values(text: str) -> dict[tuple[str, ...], float]:
    """Return the samples of a text, by name and the values of the labels in the order of their names."""
    return {
        (one.name, *(one.labels[name] for name in sorted(one.labels) if name != "stack")): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


@pytest.fixture
def found(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Status:
    """Return the status that the command finds: a test may change it."""
    machine.configure()
    one = well()
    monkeypatch.setattr(status, "gather", lambda *_, **__: one)
    return one


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["metrics", *arguments])


@pytest.mark.usefixtures("found")
def test_a_status_becomes_metrics() -> None:
    done = run()

    assert done.exit_code == 0, done.output
    shown = values(done.stdout)
    assert (
        shown.items()
        >= {
            ("dify_stack_ok",): 1,
            ("dify_stack_problems",): 0,
            ("dify_stack_info", "registry", "0.1.0", "1.17.1"): 1,
            ("dify_stack_edge_answers",): 1,
            ("dify_stack_certificate_end_timestamp_seconds",): WHEN.timestamp(),
            ("dify_stack_backup_timestamp_seconds",): WHEN.timestamp(),
            ("dify_stack_up_succeeded",): 1,
            ("dify_stack_service_ok", "api"): 1,
            ("dify_stack_service_restarts", "api"): 2,
            ("dify_stack_service_memory_bytes", "api"): 500,
            ("dify_stack_service_memory_limit_bytes", "api"): 1000,
            ("dify_stack_service_ready_replicas", "api"): 1,
            ("dify_stack_service_replicas", "api"): 2,
            ("dify_stack_configuration_current", "nginx"): 1,
            ("dify_stack_llm_upstream_failures", "500", "holysheep"): 3,
        }.items()
    )
    assert ("dify_stack_service_memory_bytes", "migration") not in shown
    assert abs(shown[("dify_stack_looked_timestamp_seconds",)] - time.time()) < 600


def test_problems_are_values_and_not_the_exit_code(found: Status) -> None:
    found.services = [
        Service(service="api", container="", job=False, state="missing", problem="api is missing")
    ]
    found.last_backup = found.last_update = found.certificate = found.address = found.upstreams = None
    found.add("api is missing", "up")

    done = run()

    shown = values(done.stdout)
    assert done.exit_code == 0
    assert shown[("dify_stack_ok",)] == 0
    assert shown[("dify_stack_problems",)] == 1
    assert shown[("dify_stack_service_ok", "api")] == 0
    assert shown[("dify_stack_backup_timestamp_seconds",)] == 0
    unknown = ("certificate", "edge_answers", "up_succeeded", "llm_upstream")
    assert not [name for name, *_ in shown if name.startswith(tuple(f"dify_stack_{one}" for one in unknown))]


@pytest.mark.usefixtures("found")
def test_a_file_is_complete_and_readable_for_a_collector(tmp_path: Path) -> None:
    target = tmp_path / "dify.prom"
    target.write_text("old")

    done = run("--to", str(target))

    assert (done.exit_code, done.stdout) == (0, "")
    assert values(target.read_text())[("dify_stack_ok",)] == 1
    assert target.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.glob("*dify.prom*")] == ["dify.prom"]


@pytest.mark.usefixtures("found")
def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    done = run("--to", str(tmp_path / "missing" / "dify.prom"))

    assert done.exit_code == 1
    assert "missing/dify.prom" in done.stderr


def test_the_newest_look_is_served(found: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    port, looks = free_port(), []

    def sleep(_seconds: float) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            looks.append(values(answer.read().decode())[("dify_stack_problems",)])
        found.add(f"problem {len(looks)}")
        if len(looks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)

    done = run("--serve", "30s", "--port", str(port))

    assert done.exit_code == 130
    assert looks == [0, 1]


def test_nothing_is_served_before_the_first_look() -> None:
    registry = CollectorRegistry()
    registry.register(StackMetrics("dev"))

    assert list(registry.collect()) == []


def test_a_port_that_is_taken_is_an_error() -> None:
    port = free_port()
    with serving(StackMetrics("dev"), port):
        before = threading.active_count()
        with pytest.raises(KitError, match=f"--port {port}"), serving(StackMetrics("dev"), port):
            pytest.fail("two serve at one port")
        assert threading.active_count() == before


@pytest.mark.usefixtures("found")
def test_a_wrong_interval_names_the_option() -> None:
    done = run("--serve", "soon")

    assert done.exit_code == 2
    assert "--serve 'soon'" in done.stderr
