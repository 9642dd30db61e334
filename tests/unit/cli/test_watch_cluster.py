"""`dify-kit logs`, `status` and `support-bundle` of a stack on a cluster, against an API of the test's own."""

import base64
import json
import tarfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dify_kit.__main__ import app
from dify_kit.checks import published
from dify_kit.commands import logs as logs_command
from dify_kit.commands import status as status_command
from dify_kit.commands import support_bundle as bundle_command
from dify_kit.errors import KitError
from dify_kit.stack.cluster_objects import cluster_objects
from dify_kit.watch import logs
from dify_kit.watch.logs import Follower, Line
from infra.masking import MASK
from tests.unit.cli.conftest import Machine
from tests.unit.cluster_api import CONTEXT, Api, Channel, served

NAMESPACE = "/api/v1/namespaces/dify-dev"
SECRET = "zebra-crossing/4711+="
MEMORY = 300 * 1024 * 1024
NOW = datetime.now(tz=UTC)


def at(seconds_ago: float) -> str:
    return (NOW - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%S.000000000Z")


def pod(
    name: str, service: str, *, ready: bool = True, restarts: int = 0, job: bool = False, **status: Any
) -> dict[str, Any]:
    """Return a pod of a service, with one container."""
    running: dict[str, Any] = {"running": {"startedAt": at(600)}}
    container = {
        "name": service,
        "ready": ready,
        "started": True,
        "restartCount": restarts,
        "state": running,
        **status,
    }
    labels = {"dify-kit.stack": "dev", "dify-kit.service": service}
    return {
        "metadata": {
            "name": name,
            "namespace": "dify-dev",
            "labels": labels | ({"dify-kit.job": "true"} if job else {}),
            "managedFields": [{"manager": "pulumi"}],
        },
        "spec": {
            "containers": [
                {
                    "name": service,
                    "image": f"registry.example.com/{service}:1",
                    "readinessProbe": {"exec": {}},
                    "envFrom": [{"secretRef": {"name": f"{service}-environment"}}],
                    "env": [{"name": "MY_PASSWORD", "value": "hunter2hunter2"}, {"name": "A", "value": "b"}],
                    "resources": {"limits": {"memory": "512Mi"}},
                }
            ]
        },
        "status": {
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [container],
        },
    }


def workload(name: str, **spec: Any) -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": name, "image": f"registry.example.com/{name}:1"}]}}
    return {
        "metadata": {
            "name": name,
            "namespace": "dify-dev",
            "labels": {"dify-kit.stack": "dev", "dify-kit.service": name},
        },
        "spec": {"replicas": 1, "template": template, **spec},
    }


def deployed(name: str, kind: str = "apps/v1:Deployment", **spec: Any) -> dict[str, Any]:
    """Return a workload as Pulumi's state has it."""
    return {
        "urn": f"urn:{name}",
        "type": f"kubernetes:{kind}",
        "id": f"dify-dev/{name}",
        "inputs": {"spec": workload(name, **spec)["spec"]},
    }


def event(name: str, reason: str, message: str, seconds_ago: float, **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{name}.1", "namespace": "dify-dev"},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "involvedObject": {"kind": "Pod", "name": name},
        "lastTimestamp": at(seconds_ago),
        **more,
    }


def answer(kind: str, *items: dict[str, Any]) -> None:
    places = {
        "pods": f"{NAMESPACE}/pods",
        "events": f"{NAMESPACE}/events",
        "secrets": f"{NAMESPACE}/secrets",
        "claims": f"{NAMESPACE}/persistentvolumeclaims",
        "deployments": "/apis/apps/v1/namespaces/dify-dev/deployments",
        "statefulsets": "/apis/apps/v1/namespaces/dify-dev/statefulsets",
        "jobs": "/apis/batch/v1/namespaces/dify-dev/jobs",
    }
    Api.answers["GET", places[kind]] = (200, {"items": list(items)})
    if kind == "pods":
        for one in items:
            Api.answers["GET", f"{NAMESPACE}/pods/{one['metadata']['name']}"] = (200, one)


def logged(
    name: str, *rows: tuple[float, str], previous: tuple[tuple[float, str], ...] | None = None
) -> None:
    """Let a pod have a log: seconds ago, and text; and one of the run before."""

    def of(found: tuple[tuple[float, str], ...]) -> bytes:
        return "".join(f"{at(ago)} {text}\n" for ago, text in found).encode()

    def reply(path: str, _body: object) -> tuple[int, Any]:
        assert "timestamps=true" in path
        if "previous=true" in path:
            return (200, of(previous)) if previous else (400, {"message": "no run before"})
        return 200, of(rows)

    Api.answers["GET", f"{NAMESPACE}/pods/{name}/log"] = reply


def shell(_pod: str, words: list[str], channel: Channel) -> None:
    """Answer what the commands of `status` ask in a pod."""
    text = words[-1]
    if "memory.current" in text:
        channel.write(f"{MEMORY}\ninactive_file {MEMORY // 3}\n".encode())
    elif text.endswith("/revision"):
        channel.write(b'{"revision": "edge-rev-1"}')
    channel.end(0)


@pytest.fixture
def stack(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A stack on a cluster: two pods of api, one of nginx, a migration that has ended."""

    def no_engine() -> None:
        raise KitError("there is no Docker engine", "start one")

    for command in (logs_command, status_command, bundle_command):
        monkeypatch.setattr(command, "DockerEngine", no_engine)
    monkeypatch.setattr(published, "problem", lambda _where: "")
    with served(tmp_path) as kubeconfig:
        Api.shells.append(shell)
        kubernetes = {"kubeconfig": str(kubeconfig), "context": CONTEXT, "registry": "preloaded"}
        machine.configure(
            platform="kubernetes", kubernetes=kubernetes, publicUrl="http://dify.example.com:30080"
        )
        answer("pods", pod("api-1", "api"), pod("api-2", "api"), pod("nginx-1", "nginx"))
        answer("deployments", workload("api", replicas=2), workload("nginx"))
        answer("statefulsets")
        answer("jobs", {**workload("migration"), "spec": workload("migration")["spec"]})
        answer("events")
        answer("claims")
        encoded = base64.b64encode(SECRET.encode()).decode()
        answer("secrets", {"metadata": {"name": "api-environment"}, "data": {"SECRET_KEY": encoded}})
        logged("api-1", (30, "api starts"), (10, f"api connects with {SECRET}"))
        logged("api-2", (20, "api starts too"))
        logged("nginx-1", (25, "nginx starts"))
        machine.state(
            resources=[
                {
                    "urn": "urn:s",
                    "type": "pulumi:pulumi:Stack",
                    "outputs": {
                        "containers": {"api": "kubernetes://one/api", "nginx": "kubernetes://one/nginx"},
                        "jobs": {"migration": "kubernetes://one/migration"},
                        "edgeRevision": "edge-rev",
                        "publicUrl": "http://dify.example.com:30080",
                    },
                },
                deployed("api", replicas=2),
                deployed("nginx"),
                {"urn": "urn:m", "type": "kubernetes:batch/v1:Job", "id": "dify-dev/migration", "inputs": {}},
            ]
        )
        yield machine


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def status(stack: Machine) -> dict[str, Any]:
    assert stack
    done = run("status", "--json")
    assert not isinstance(done.exception, KitError), done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def problems(stack: Machine) -> list[str]:
    return [one["what"] for one in status(stack)["problems"] if "passphrase" not in one["what"]]


def service(found: dict[str, Any], name: str) -> dict[str, Any]:
    (one,) = [row for row in found["services"] if row["service"] == name]
    return dict(one)


# --- logs ----------------------------------------------------------------------------------------------------------


def test_lines_of_a_service_with_several_pods_begin_with_the_pod(stack: Machine) -> None:
    assert stack
    assert run("logs").stdout.splitlines() == [
        "api-1 | api starts",
        "nginx | nginx starts",
        "api-2 | api starts too",
        f"api-1 | api connects with {MASK}",
    ]


def test_json_names_the_pod(stack: Machine) -> None:
    assert stack
    found = [json.loads(line) for line in run("logs", "nginx", "--json").stdout.splitlines()]

    assert found == [{"time": at(25), "service": "nginx", "pod": "nginx-1", "line": "nginx starts"}]


def test_warnings_of_the_cluster_are_lines_among_the_others(stack: Machine) -> None:
    assert stack
    answer(
        "events",
        event("api-2", "Unhealthy", "Readiness probe failed:\n 502", 5, count=3),
        event("api-2", "Pulled", "Image is there", 6, type="Normal"),
        # As each pod has while it starts.
        event("api-2", "Unhealthy", "Startup probe failed: curl: (7)", 7),
        event("web-77", "BackOff", "of another service", 5),
        # Of a pod that is gone.
        event("api-0", "Evicted", "The node was low on memory", 28),
    )

    assert run("logs", "api").stdout.splitlines() == [
        "api-1 | api starts",
        "api-0 | [event] Evicted: The node was low on memory",
        "api-2 | api starts too",
        f"api-1 | api connects with {MASK}",
        "api-2 | [event] Unhealthy: Readiness probe failed: 502 (3 times)",
    ]


def test_since_leaves_out_what_is_older_by_the_time_of_its_line(stack: Machine) -> None:
    assert stack
    shown = run("logs", "api", "--since", at(22)).stdout.splitlines()

    assert shown == ["api-2 | api starts too", f"api-1 | api connects with {MASK}"]
    asked = [path for _, path, _ in Api.requests if "/log?" in path]
    assert all("sinceSeconds=" in path and "tailLines" not in path for path in asked)


def test_the_run_before_a_restart_and_what_runs_before_the_service_are_in_the_log(stack: Machine) -> None:
    assert stack
    crashed = pod("nginx-1", "nginx", restarts=2)
    crashed["status"]["initContainerStatuses"] = [
        {"name": "current", "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}
    ]
    answer("pods", crashed)
    logged("nginx-1", (5, "second run"), previous=((9, "first run"), (8, "it crashes")))

    shown = run("logs", "nginx", "--tail", "2").stdout.splitlines()

    assert shown == ["nginx | it crashes", "nginx | second run"]
    containers = [path for _, path, _ in Api.requests if "/log?" in path]
    assert ["container=current" in path for path in containers] == [True, False, False]


def test_a_pod_without_a_log_yet_has_no_lines(stack: Machine) -> None:
    assert stack
    Api.answers["GET", f"{NAMESPACE}/pods/nginx-1/log"] = (400, {"message": "waiting to start"})

    done = run("logs", "nginx")

    assert (done.exit_code, done.stdout) == (0, "")


def test_a_cluster_that_refuses_is_an_error_with_its_fix(stack: Machine) -> None:
    assert stack
    Api.answers["GET", f"{NAMESPACE}/pods"] = (403, {"message": "no"})

    done = run("logs")

    assert done.exit_code == 1
    assert "refuses listing pods: 403" in done.stderr
    assert "kubectl auth can-i" in done.stderr


def test_a_new_pod_and_new_warnings_are_followed(stack: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LOOK_SECONDS", 0.1)
    engine = cluster_objects(stack.files())
    assert engine is not None
    answer("events", event("nginx-1", "Old", "before the first look", 100))
    shown: list[Line] = []
    follower = Follower(engine, "dev", {"nginx"}, time.time() - 60)
    deadline = time.monotonic() + 60

    def replaced() -> None:
        while not shown and time.monotonic() < deadline:
            time.sleep(0.05)
        logged("nginx-2", (1, "the new pod"))
        answer("pods", pod("nginx-2", "nginx"))
        answer("events", event("nginx-2", "Unhealthy", "not yet", 0))

    threading.Thread(target=replaced).start()
    follower.run(shown.extend, until=lambda: len(shown) >= 3 or time.monotonic() > deadline)

    assert sorted((line.pod, line.text, line.event) for line in shown) == [
        ("nginx-1", "nginx starts", False),
        ("nginx-2", "Unhealthy: not yet", True),
        ("nginx-2", "the new pod", False),
    ]


# --- status --------------------------------------------------------------------------------------------------------


def test_a_healthy_stack_has_its_replicas_memory_and_no_problem(stack: Machine) -> None:
    found = status(stack)

    assert problems(stack) == []
    api = service(found, "api")
    assert (api["ready"], api["wanted"], api["state"], api["health"]) == (2, 2, "running", "healthy")
    assert (api["container"], api["image"]) == ("Deployment api", "registry.example.com/api:1")
    assert api["memory"] == 2 * (MEMORY - MEMORY // 3)
    assert api["memoryLimit"] == 2 * 512 * 1024 * 1024
    assert [one["name"] for one in api["pods"]] == ["api-1", "api-2"]
    assert found["revisions"]["nginx"]["same"]
    assert found["address"]["answers"] is True
    migration = service(found, "migration")
    assert (migration["job"], migration["state"], migration["wanted"]) == (True, "exited", 0)
    screen = run("status").stdout
    assert "2/2" in screen


def test_a_pod_that_crashes_is_a_problem_with_its_last_end_and_the_last_warning(stack: Machine) -> None:
    ended = {"exitCode": 137, "reason": "OOMKilled", "finishedAt": at(3)}
    crashed = pod(
        "api-2",
        "api",
        ready=False,
        restarts=4,
        state={"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
        lastState={"terminated": ended},
    )
    answer("pods", pod("api-1", "api"), crashed, pod("nginx-1", "nginx"))
    answer("events", event("api-2", "BackOff", "Back-off restarting failed container", 2))

    (problem,) = problems(stack)

    assert problem.startswith(
        "api has 1 of 2 pods ready; pod api-2, container api: exited with code 137 (OOMKilled"
    )
    screen = run("status").stdout
    assert "pod api-2 restarting, 4 restart(s): OOMKilled, exit code 137" in screen
    assert "api: last warning: BackOff: Back-off restarting failed container" in screen


def test_a_pod_that_restarted_and_runs_is_shown_and_no_problem(stack: Machine) -> None:
    ended = {"exitCode": 1, "reason": "Error", "finishedAt": at(3)}
    restarted = pod("nginx-1", "nginx", restarts=1, lastState={"terminated": ended})
    answer("pods", pod("api-1", "api"), pod("api-2", "api"), restarted)

    assert problems(stack) == []
    assert "pod nginx-1 running, 1 restart(s): exit code 1" in run("status").stdout


def test_pods_that_start_are_no_problem(stack: Machine) -> None:
    starting = pod("api-2", "api", ready=False, started=False)
    answer("pods", pod("api-1", "api"), starting, pod("nginx-1", "nginx"))

    assert problems(stack) == []
    assert service(status(stack), "api")["health"] == "starting"


def test_no_node_for_a_pod_and_no_pod_at_all_are_problems_with_the_reason(stack: Machine) -> None:
    waiting = pod("api-2", "api", ready=False)
    waiting["status"] = {
        "phase": "Pending",
        "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}
        ],
    }
    answer("pods", pod("api-1", "api"), waiting)
    refused = {"kind": "ReplicaSet", "name": "nginx-5d7f"}
    answer("events", event("", "FailedCreate", "exceeded quota", 5, involvedObject=refused))

    assert problems(stack) == [
        "api has 1 of 2 pods ready; no node takes pod api-2: Unschedulable: 0/2 nodes",
        "nginx has 0 of 1 pods ready; no pod can be made: FailedCreate: exceeded quota",
    ]


def test_what_was_changed_outside_of_the_kit_is_drift(stack: Machine) -> None:
    other = workload("nginx")
    other["spec"]["template"]["spec"]["containers"][0]["image"] = "nginx:other"
    answer("deployments", workload("api", replicas=0), other, workload("stranger", replicas=0))

    found = problems(stack)

    assert "api was scaled to 0 pods outside of the kit, and 2 were deployed" in found
    assert "nginx has image nginx:other, and registry.example.com/nginx:1 was deployed" in found
    assert "stranger is not in the state" in found


def test_the_number_that_an_autoscaler_chose_is_no_drift(stack: Machine) -> None:
    scaled = deployed("api")
    del scaled["inputs"]["spec"]["replicas"]
    stack.state(resources=[scaled, deployed("nginx")])
    answer("deployments", workload("api", replicas=2), workload("nginx"))

    assert not [problem for problem in problems(stack) if problem.startswith("api")]


def test_a_deleted_workload_is_missing(stack: Machine) -> None:
    answer("deployments", workload("api", replicas=2))
    answer("pods", pod("api-1", "api"), pod("api-2", "api"))

    assert problems(stack) == ["nginx has no container"]


def test_pods_that_end_while_others_take_their_places_say_nothing(stack: Machine) -> None:
    ending = pod("api-0", "api", ready=False)
    ending["metadata"]["deletionTimestamp"] = at(1)
    answer("pods", ending, pod("api-1", "api"), pod("api-2", "api"), pod("nginx-1", "nginx"))

    assert problems(stack) == []
    assert service(status(stack), "api")["state"] == "running"


def test_a_pod_of_nginx_with_another_revision_is_a_problem(stack: Machine) -> None:
    answer("pods", pod("api-1", "api"), pod("api-2", "api"), pod("nginx-1", "nginx"), pod("nginx-2", "nginx"))
    answer("deployments", workload("api", replicas=2), workload("nginx", replicas=2))

    def different(name: str, words: list[str], channel: Channel) -> None:
        if words[-1].endswith("/revision"):
            channel.write(
                json.dumps({"revision": f"edge-rev-{name}" if name == "nginx-1" else "old"}).encode()
            )
            channel.end(0)
        else:
            shell(name, words, channel)

    Api.shells[0] = different
    found = problems(stack)

    assert "nginx runs revision edge-rev-nginx-1,old, and edge-rev was deployed" in found


def test_an_address_that_does_not_answer_is_a_problem(
    stack: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "problem", lambda where: f"refused at {where.port}")

    assert problems(stack) == ["dify.example.com:30080 does not answer: refused at 30080"]


# --- support bundle ------------------------------------------------------------------------------------------------


def test_a_bundle_has_pods_workloads_events_and_no_secret(stack: Machine, tmp_path: Path) -> None:
    assert stack
    answer("events", event("api-2", "Unhealthy", f"probe with {SECRET}", 5))

    done = run("support-bundle", "--to", str(tmp_path / "report.tar.gz"))

    assert done.exit_code == 0, done.output
    with tarfile.open(tmp_path / "report.tar.gz") as tar:
        files = {
            name.partition("/")[2]: (tar.extractfile(name) or tar).read().decode()  # type: ignore[union-attr]
            for name in tar.getnames()
        }
    assert {"cluster/pods.json", "cluster/workloads.json", "cluster/events.json", "logs/api.log"} <= set(
        files
    )
    whole = "".join(files.values())
    assert SECRET not in whole
    assert "hunter2hunter2" not in whole
    pods = json.loads(files["cluster/pods.json"])
    assert [one["metadata"]["name"] for one in pods] == ["api-1", "api-2", "nginx-1"]
    assert "managedFields" not in pods[0]["metadata"]
    assert {"name": "A", "value": MASK} in pods[0]["spec"]["containers"][0]["env"]
    assert f"api-2 [event] Unhealthy: probe with {MASK}" in files["logs/api.log"]
    assert not [path for path in files if path.startswith("containers/")]


def test_a_bundle_of_a_cluster_that_does_not_answer_says_so(stack: Machine, tmp_path: Path) -> None:
    assert stack
    Api.answers["GET", f"{NAMESPACE}/pods"] = (500, {"message": "no"})

    done = run("support-bundle", "--to", str(tmp_path / "report.tar.gz"))

    assert done.exit_code == 0, done.output
    refused = "dify:kubernetes.context: the cluster of context 'one' refuses listing pods: 500"
    assert f"logs and containers: {refused}" in done.stdout
    assert "settings.json" in done.stdout
