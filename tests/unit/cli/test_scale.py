"""`dify-kit scale`: what other numbers of pods cost, and the settings for them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from dify_kit.stack import scaling
from infra.guards.cluster_facts import Node
from infra.platforms.kubernetes import demand
from support.configuration import settings as of_stack
from tests.unit.cli.conftest import Machine
from tests.unit.cli.test_cli import run
from tests.unit.cluster_server import Answers, a_list, node, serving

GIB = 1024**3


@contextmanager
def on_cluster(machine: Machine, directory: Path, answers: Answers, **parts: Any) -> Iterator[None]:
    with serving(answers, directory) as kubeconfig:
        chosen = {"kubeconfig": str(kubeconfig), "context": "test", "registry": "preloaded", **parts}
        machine.configure(platform="kubernetes", kubernetes=chosen)
        yield


def answers(*pods: dict[str, Any]) -> Answers:
    found = Answers()
    found.objects["/api/v1/pods"] = a_list(*pods)
    return found


def told(done: Result) -> str:
    return " ".join(done.stderr.split())


def set_values(machine: Machine) -> dict[str, Any]:
    (call,) = machine.calls("config", "set-all")
    entries = json.loads(call["environment"]["PULUMI_OPTION_JSON"])
    return dict(json.loads(entries["dify:kubernetes"]["value"]))


def test_it_shows_what_a_change_takes_and_sets_it(machine: Machine, tmp_path: Path) -> None:
    with on_cluster(machine, tmp_path, answers(), sharedStorageClass="nfs"):
        done = run("scale", "api=3", "web=2", "--apply", "--json")

    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    assert plan["services"]["api"] == {"before": 1, "after": 3}
    assert plan["services"]["worker"] == {"before": 1, "after": 1}
    assert plan["after"]["pods"] == plan["before"]["pods"] + 3
    each = of_stack()
    api, web = (demand.of_pod(name, each) for name in ("api", "web"))
    for kind in ("memory", "cpu"):
        added = 2 * api.requests[kind] + web.requests[kind]
        assert plan["after"]["requests"][kind] - plan["before"]["requests"][kind] == pytest.approx(added)
        limited = 2 * api.limits[kind] + web.limits[kind]
        assert plan["after"]["limits"][kind] - plan["before"]["limits"][kind] == pytest.approx(limited)
    assert plan["room"]["added"] == plan["room"]["placed"] == 3
    assert plan["databaseConnections"]["after"] > plan["databaseConnections"]["before"]
    assert set_values(machine)["replicas"] == {"api": 3, "web": 2}
    assert "puts it into effect" in told(done)


def test_it_sets_nothing_by_itself(machine: Machine, tmp_path: Path) -> None:
    with on_cluster(machine, tmp_path, answers()):
        done = run("scale", "web=2")

    assert done.exit_code == 0, done.output
    assert "scale web=2 --apply" in told(done)
    assert machine.calls() == []
    (row,) = [line.split() for line in done.stdout.splitlines() if line.startswith("pods of web")]
    assert row == ["pods", "of", "web", "1", "2", "*"]


@pytest.mark.parametrize(("typed", "changed"), [("y\n", True), ("n\n", False)])
def test_at_a_terminal_it_asks(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, changed: bool
) -> None:
    monkeypatch.setattr("dify_kit.commands.scale._at_a_terminal", lambda: True)
    with on_cluster(machine, tmp_path, answers()):
        done = run("scale", "web=2", stdin=typed)

    assert done.exit_code == 0, done.output
    assert bool(machine.calls("config", "set-all")) is changed


def test_nodes_without_room_are_warned_about(machine: Machine, tmp_path: Path) -> None:
    full = {
        "spec": {
            "nodeName": "node1",
            "containers": [{"resources": {"requests": {"memory": "63.5Gi", "cpu": "1"}}}],
        }
    }
    with on_cluster(machine, tmp_path, answers(full)):
        done = run("scale", "web=50")

    assert done.exit_code == 0, done.output
    assert "the others wait for another node" in told(done)


def test_nodes_that_cannot_be_listed_are_said(machine: Machine, tmp_path: Path) -> None:
    found = answers()
    del found.objects["/api/v1/nodes"]
    with on_cluster(machine, tmp_path, found):
        done = run("scale", "web=2")

    assert "room on the nodes: unknown" in done.stdout


def test_what_up_would_refuse_is_refused(machine: Machine, tmp_path: Path) -> None:
    found = answers()
    found.objects["/api/v1/nodes"] = a_list(node(ready=False))
    with on_cluster(machine, tmp_path, found):
        done = run("scale", "web=2", "--apply")

    assert done.exit_code == 1
    assert "kubectl get nodes" in told(done)
    assert machine.calls() == []


@pytest.mark.parametrize(
    ("word", "why"),
    [
        (
            "api=2",
            "dify:kubernetes.replicas.api: '2': Dify's file storage is on a claim that one node alone can mount",
        ),
        ("web=51", "dify:kubernetes.replicas.web: '51': not a whole number in range"),
        ("web=0", "dify:kubernetes.replicas.web: '0'"),
        ("redis=2", "redis=2: no service of this name can be scaled"),
        ("web=two", "web=two: not a service with a number of pods"),
        ("web", "web: not a service with a number of pods"),
    ],
)
def test_a_number_that_the_settings_refuse(machine: Machine, tmp_path: Path, word: str, why: str) -> None:
    with on_cluster(machine, tmp_path, answers()):
        done = run("scale", word, "--apply")

    assert done.exit_code != 0
    assert why in told(done)
    assert machine.calls() == []


def test_a_service_that_the_cluster_scales(machine: Machine, tmp_path: Path) -> None:
    with on_cluster(machine, tmp_path, answers(), autoscale={"web": {"max": 4}}):
        done = run("scale", "web=2", "--apply")

    assert done.exit_code != 0
    assert "dify:kubernetes.replicas.web: '2': the cluster chooses the number of pods" in told(done)


def test_on_docker_replicas_need_a_cluster(machine: Machine) -> None:
    machine.configure()

    done = run("scale", "api=2")

    assert done.exit_code == 1
    assert "more need a cluster" in told(done)
    assert "set apiWorkers" in told(done)


def test_pods_fill_the_nodes_one_by_one() -> None:
    """2 nodes with room for one pod of web each, and a third pod that has none."""
    wanted = demand.of_pod("web", of_stack()).requests["memory"]
    nodes = [
        Node(name=name, architecture="amd64", allocatable={"memory": wanted * 1.5, "cpu": 4.0, "pods": 10.0})
        for name in ("a", "b")
    ]

    found = scaling.room(of_stack(), {"web": 1}, {"web": 4}, nodes, [])

    assert (found.added, found.placed, found.enough) == (3, 2, False)


def test_a_node_that_has_its_number_of_pods_takes_none() -> None:
    one = Node(name="a", architecture="amd64", allocatable={"memory": 64.0 * GIB, "cpu": 4.0, "pods": 1.0})
    there = {"spec": {"nodeName": "a", "containers": []}}

    assert scaling.room(of_stack(), {"web": 1}, {"web": 2}, [one], [there]).placed == 0


def test_connections_are_those_of_every_pool() -> None:
    variables = {"SQLALCHEMY_POOL_SIZE": "5", "SQLALCHEMY_MAX_OVERFLOW": "0"}
    stack = of_stack(
        {"apiWorkers": 2, "celeryWorkers": 3, "extraEnv": {"api": variables, "worker": variables}}
    )

    assert scaling.connections(stack, {"api": 2, "worker": 1}) == 2 * 2 * 5 + 3 * 5
