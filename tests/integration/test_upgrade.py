"""The drill: 1.12.1 to 1.14.2 to 1.17.1 with data, killed on the way, and back to the data of 1.14.2."""

import json
import signal
import stat
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from support.stacks import CHECKOUT, KIT, Done, Stack
from tests.integration.kept import SETTINGS, Kept

FIRST, SECOND, THIRD = "1.12.1", "1.14.2", "1.17.1"
# What the command has printed when it is killed: in the backup; with the settings changed and the data not; in the
# migration, while the plugin daemon is replaced; while the volumes of a rollback are filled.
IN_BACKUP, BEFORE_DATA = "database dify_plugin", "==> deploying stack"
IN_MIGRATION, IN_RESTORE = "  + container migration", "volume app_storage"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    one = Stack(home=tmp_path_factory.mktemp("upgrade") / "home", release=FIRST)
    try:
        chosen = [*SETTINGS, 'extraEnv={"api": {"EDITION": "SELF_HOSTED"}}']
        done = one.init(set=chosen)
        assert done.code == 0, done.output
        yield one
    finally:
        one.remove()


@pytest.fixture(scope="module")
def kept(stack: Stack) -> Kept:
    """A stack of the first release with data."""
    return Kept.of(stack)


def upgrade(stack: Stack, release: str, *options: str) -> Done:
    return stack.kit("upgrade", release, "--stack", stack.name, *options)


def succeeded(done: Done) -> Done:
    assert done.code == 0, done.output[-6000:]
    return done


def killed(stack: Stack, place: str, *arguments: str) -> None:
    """Run a command, and kill it once it has printed a line that begins like this."""
    seen: list[str] = []
    with subprocess.Popen(
        [str(KIT), *arguments, "--stack", stack.name],
        cwd=CHECKOUT,
        env=stack.environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr
        for line in process.stderr:
            seen.append(line)
            if line.startswith(place):
                break
        process.kill()
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, "".join(seen[-20:])


def journal(stack: Stack) -> dict[str, Any]:
    path = stack.home / "runs" / f"{stack.name}.upgrade"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def test_the_first_upgrade_is_killed_in_its_backup_and_continued(stack: Stack, kept: Kept) -> None:
    planned = json.loads(succeeded(upgrade(stack, SECOND, "--plan", "--json")).stdout)
    assert [one["kind"] for one in planned["steps"]] == ["backup", "move", "smoke"]
    killed(stack, IN_BACKUP, "upgrade", SECOND, "--yes")
    assert journal(stack)["at"] == 0
    assert list((stack.home / "backups").glob("*.dify-backup")) == []

    done = succeeded(upgrade(stack, SECOND))

    assert f"continuing the upgrade of stack {stack.name} to Dify {SECOND}" in done.stderr
    assert f"stack {stack.name} runs Dify {SECOND} (before: {FIRST})" in done.stderr
    assert f"rollback --stack {stack.name}" in done.stderr.strip().splitlines()[-1]
    [archive] = (stack.home / "backups").glob("*.dify-backup")
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    assert list((stack.home / "backups").glob(".*.part")) == []
    noted = journal(stack)
    assert (noted["state"], noted["archive"]) == ("done", str(archive))
    # Measured while the api was replaced.
    assert 0 < noted["away"] < sum(noted["seconds"].values())
    kept.check(SECOND)


def test_a_way_back_by_the_settings_is_refused(stack: Stack, kept: Kept) -> None:
    kept.add("of 1.14.2")
    refused = upgrade(stack, FIRST, "--yes")
    assert refused.code == 1
    assert f"Dify cannot migrate data back to {FIRST}" in refused.stderr

    # That `up` refuses such a setting is a test of test_stack.py.
    assert stack.kit("set", "release", FIRST, "--stack", stack.name).code == 0
    behind = upgrade(stack, THIRD, "--yes")
    assert stack.kit("set", "release", SECOND, "--stack", stack.name).code == 0

    assert behind.code == 1
    assert f"the settings say Dify {FIRST}, and its data is of {SECOND}" in behind.stderr
    assert kept.now() == kept.messages


def test_an_upgrade_that_has_not_touched_the_data_is_taken_back_without_a_loss(
    stack: Stack, kept: Kept
) -> None:
    killed(stack, BEFORE_DATA, "upgrade", THIRD, "--yes", "--without-smoke")
    assert stack.kit("output", "release", "--stack", stack.name).stdout.strip() == SECOND
    kept.add("after the backup")

    done = succeeded(stack.kit("rollback", "--stack", stack.name))

    assert "its data is as it was" in done.stderr
    assert "no data was lost" in done.stderr
    kept.check(SECOND)


def test_the_second_upgrade_is_killed_in_the_migration_and_continued(stack: Stack, kept: Kept) -> None:
    killed(stack, IN_MIGRATION, "upgrade", THIRD, "--yes", "--without-smoke")
    refused = upgrade(stack, "1.17.0", "--yes")
    assert refused.code == 1
    assert f"an upgrade of stack {stack.name} to Dify {THIRD} is not complete" in refused.stderr

    succeeded(upgrade(stack, THIRD))

    extra = json.loads(stack.pulumi("config", "get", "dify:extraEnv").stdout)
    assert extra == {"api": {"DEPLOYMENT_EDITION": "COMMUNITY"}}
    kept.check(THIRD)


def test_rollback_brings_back_the_data_of_before_also_when_it_is_killed(stack: Stack, kept: Kept) -> None:
    noted, before = journal(stack), kept.messages
    kept.add("which is lost")
    asked = stack.kit("rollback", "--stack", stack.name)
    assert asked.code == 2
    assert kept.now() == kept.messages
    sure = ("--yes-delete-data-of", stack.name)
    killed(stack, IN_RESTORE, "rollback", *sure)
    assert stack.try_up().code == 1

    done = succeeded(stack.kit("rollback", "--stack", stack.name, *sure))

    assert f"runs Dify {noted['release']} again" in done.stderr
    kept.messages = before
    kept.check(noted["release"])
    extra = json.loads(stack.pulumi("config", "get", "dify:extraEnv").stdout)
    assert extra == {"api": {"EDITION": "SELF_HOSTED"}}
    assert not (stack.home / "runs" / f"{stack.name}.upgrade").exists()
