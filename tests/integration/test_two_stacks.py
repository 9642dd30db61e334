"""A second stack beside the first: another release, killed in the middle of its first deployment."""

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from support.stacks import SMALLEST, Stack, kill_group, wait_until


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of the oldest release."""
    stack = Stack(home=tmp_path_factory.mktemp("second"), release=SMALLEST)
    try:
        created = stack.init()
        assert created.code == 0, created.output
        yield stack
    finally:
        stack.remove()


def test_up_after_sigkill_finishes_and_both_stacks_work(stack: Stack, second: Stack) -> None:
    before = stack.containers()
    running = second.start_up()
    try:
        wait_until(lambda: "db-postgres" in second.containers(), seconds=420, what="the database container")
    finally:
        kill_group(running)

    second.up()

    # All of them, but for the browser's view, which has been looked at; of the first stack, that it answers.
    for one, chosen in ((second, []), (stack, ["-k", "authentication"])):
        smoke = one.smoke("--browser", "none", *chosen)
        assert smoke.code == 0, smoke.output[-5000:]
    assert stack.containers() == before
    assert second.outputs()["release"] == SMALLEST
    assert "agent-backend" not in second.containers()
    assert Path(f"Pulumi.{second.name}.yaml").is_symlink()


def test_down_with_its_data_leaves_nothing_of_it_and_the_other_alone(stack: Stack, second: Stack) -> None:
    before = stack.containers(), stack.volumes()
    assert second.volumes()

    done = second.kit("down", "--stack", second.name, "--yes-delete-data-of", second.name)

    assert done.code == 0, done.output[-5000:]
    assert second.containers() == {}
    assert second.volumes() == []
    assert docker.from_env().networks.list(filters={"name": f"dify-{second.name}-"}) == []
    assert (stack.containers(), stack.volumes()) == before
