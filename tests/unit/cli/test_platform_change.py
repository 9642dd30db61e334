"""Another `dify:platform` for a stack that runs is refused: the other platform would start with empty volumes."""

import pytest

from tests.unit.cli.conftest import Machine
from tests.unit.cli.test_cli import STACK, URN, run

CONTAINER = {
    "urn": f"{URN.rpartition('::')[0]}$docker:index/container:Container::redis",
    "type": "t",
    "id": "1",
}
SET = {"urn": f"{URN.rpartition('::')[0]}$kubernetes:apps/v1:StatefulSet::redis", "type": "t", "id": "2"}
CLUSTER = {"context": "test", "registry": "preloaded", "kubeconfig": "/none"}


@pytest.mark.parametrize("command", [("preview",), ("up", "--skip-setup")])
@pytest.mark.parametrize(
    ("platform", "runs", "other"), [("kubernetes", CONTAINER, "docker"), ("docker", SET, "kubernetes")]
)
def test_a_stack_that_runs_elsewhere_is_left_alone(
    machine: Machine, command: tuple[str, ...], platform: str, runs: dict[str, str], other: str
) -> None:
    machine.configure(platform=platform, kubernetes=CLUSTER)
    machine.state(resources=[STACK, runs])

    done = run(*command)

    assert done.exit_code != 0
    told = " ".join(done.stderr.split())
    assert f"dify:platform: {platform}: the stack's services and its data are on {other}" in told
    assert f"set platform {other} --stack dev" in told
    assert machine.calls() == []


def test_a_stack_that_is_down_may_change(machine: Machine) -> None:
    machine.configure(platform="kubernetes", kubernetes=CLUSTER)
    machine.state(resources=[STACK])

    done = run("preview")

    assert "the stack's services and its data" not in done.stderr
    assert machine.calls("preview")
