"""The drill: backup, rotation, restore and upgrade killed at ten points each; the next run finishes or goes back.

Every process is killed together, as by a power cut. `KILL_DRILL_SEED` draws the points of a run again.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from infra.catalogue.container_paths import POSTGRES_PASSWORD_FILE
from support.stacks import SMALLEST, Done, Stack
from tests.integration.kept import SETTINGS, Kept
from tests.integration.killing import POINTS, Drill, tell

NEWER = "1.14.2"
# A run that is faster than the measured one comes to its end before its point.
FEWEST = 0.7 * POINTS
# Rows and bytes that take some time to copy: a table of its own, and files on the storage volume.
ROWS = 200_000
FILL = (
    "CREATE TABLE drill AS SELECT g AS id, md5(g::text) || md5((g + 1)::text) AS text "
    f"FROM generate_series(1, {ROWS}) g"
)
SUM = "SELECT count(*) || ' ' || md5(string_agg(text, '' ORDER BY id)) FROM drill"
FILES = (
    "mkdir -p /app/api/storage/drill && "
    "for n in 1 2 3; do head -c 16777216 /dev/urandom > /app/api/storage/drill/$n; done"
)
ROTATED = ("database", "redis", "sandbox", "plugin", "admin")


def succeeded(done: Done) -> Done:
    assert done.code == 0, done.output[-6000:]
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def kept(folder: Path) -> Iterator[Kept]:
    """A stack with data."""
    stack = Stack(home=folder / "home", release=SMALLEST)
    try:
        succeeded(stack.init(set=list(SETTINGS)))
        one = Kept.of(stack)
        assert stack.container("api").exec_run(["sh", "-c", FILES]).exit_code == 0
        one.files = one.stored()
        query(stack, FILL)
        one.rows = query(stack, SUM)
        yield one
    finally:
        stack.remove()


@pytest.fixture(scope="module")
def drill(kept: Kept, folder: Path) -> Drill:
    return Drill(stack=kept.stack, scratch=folder)


@pytest.fixture(scope="module")
def secret(folder: Path) -> Path:
    path = folder / "archive-passphrase"
    path.write_text("a passphrase of the drill\n")
    return path


@pytest.fixture(scope="module")
def archive(kept: Kept, folder: Path, secret: Path) -> Path:
    """An archive of the stack."""
    path = folder / "whole.dify-backup"
    options = ("--stack", kept.stack.name, "--to", str(path), "--passphrase-file", str(secret))
    succeeded(kept.stack.kit("backup", *options))
    return path


def up(stack: Stack) -> tuple[str, ...]:
    return ("up", "--stack", stack.name, "--skip-setup")


def query(stack: Stack, sql: str) -> str:
    """Return what the database of Dify answers."""
    login = f'PGPASSWORD="$(cat {POSTGRES_PASSWORD_FILE})" exec psql -h 127.0.0.1 -U postgres -d dify "$@"'
    command = ["sh", "-c", login, "sh", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql]
    done = stack.container("db-postgres").exec_run(command)
    assert done.exit_code == 0, done.output.decode()
    return str(done.output.decode().strip())


def problems(stack: Stack) -> list[str]:
    """Return what `status` says is wrong."""
    done = stack.kit("status", "--stack", stack.name, "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["ok"] == (done.code == 0)
    return [str(one["what"]) for one in found["problems"]]


def in_order(kept: Kept, drill: Drill) -> None:
    """Demand that the stack serves with all of its data, and that nothing of a killed run is left."""
    stack = kept.stack
    kept.serves()
    assert query(stack, SUM) == kept.rows
    assert problems(stack) == []
    label = {"label": f"dify-kit.stack={stack.name}"}
    names = [one["Names"][0].lstrip("/") for one in docker.from_env().api.containers(all=True, filters=label)]
    known = {f"dify-{stack.name}-{service}" for service in stack.containers()}
    assert sorted(names) == sorted(known)
    assert not [name for name in names if "-backup-" in name]
    assert left_over(stack) == []
    assert [path.name for path in (drill.scratch / "tmp").iterdir()] == []
    redis = [
        "sh",
        "-c",
        'REDISCLI_AUTH="$(cat /etc/redis/password)" redis-cli CONFIG GET auto-aof-rewrite-percentage',
    ]
    assert stack.container("redis").exec_run(redis).output.decode().split() == [
        "auto-aof-rewrite-percentage",
        "100",
    ]


def left_over(stack: Stack) -> list[str]:
    """Return drafts, records of runs and locks in the data directory."""
    found = [*stack.home.rglob(".*.[0-9]*"), *stack.home.rglob("*.part"), *stack.home.rglob("fileblob*")]
    found += (stack.home / "state").rglob("locks/**/*.json")
    found += [stack.home / "runs" / f"{stack.name}.{kind}" for kind in ("json", "events", "restoring")]
    return sorted(str(one.relative_to(stack.home)) for one in found if one.exists())


def enough(drill: Drill, command: str, record_property: Callable[[str, object], None]) -> None:
    record_property("kills", drill.report(command))
    killed = [one for one in drill.kills if one.command == command and one.processes]
    assert len(killed) >= FEWEST


def test_a_backup(
    kept: Kept, drill: Drill, secret: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    stack = kept.stack
    arguments = ("backup", "--stack", stack.name, "--to", str(tmp_path), "--passphrase-file", str(secret))
    drill.lengths["backup"] = drill.run(*arguments)
    for share in drill.points("backup"):
        before = set(tmp_path.glob("*.dify-backup"))
        kill = drill.killed("backup", share, *arguments)
        kill.found = ", ".join(problems(stack))
        kept.serves()

        drill.then(kill, *arguments)

        assert list(tmp_path.glob(".*")) == []
        made = set(tmp_path.glob("*.dify-backup")) - before
        assert 1 <= len(made) <= 2
        in_order(kept, drill)
        for one in before:
            one.unlink()
    enough(drill, "backup", record_property)


def test_a_rotation(kept: Kept, drill: Drill, record_property: Callable[[str, object], None]) -> None:
    stack = kept.stack

    def command(name: str) -> tuple[str, ...]:
        return ("keys", "rotate", name, "--stack", stack.name)

    # The others restart the same clients. No client restarts for `admin`.
    drill.lengths |= dict.fromkeys(ROTATED, drill.run(*command("database")))
    drill.lengths["admin"] = drill.run(*command("admin"))
    for number, share in enumerate(drill.points("rotate")):
        name = ROTATED[number % len(ROTATED)]
        kill = drill.killed("rotate", share, *command(name), kind=name)
        kill.found = ", ".join(problems(stack))
        asked = json.loads(stack.pulumi("config", "get", "dify:secretRotations").stdout).get(name, 0)
        deployed = stack.outputs()["secretRotations"].get(name, 0)
        assert (f"rotation of {name} is not complete" in kill.found) == (asked > deployed), kill.found

        again = number % 2 == 0
        drill.then(kill, *(command(name) if again else up(stack)))

        # One that was not complete is completed, with its value; else the command makes another one.
        wanted = asked + 1 if again and asked == deployed else asked
        assert stack.outputs()["secretRotations"].get(name, 0) == wanted
        in_order(kept, drill)
    kept.check(SMALLEST)
    enough(drill, "rotate", record_property)


def test_a_restore(
    kept: Kept, drill: Drill, archive: Path, secret: Path, record_property: Callable[[str, object], None]
) -> None:
    stack = kept.stack
    options = ("--passphrase-file", str(secret), "--skip-setup", "--replace", stack.name)
    arguments = ("restore", str(archive), *options)
    drill.lengths["restore"] = drill.run(*arguments)
    points = drill.points("restore")
    mark = stack.home / "runs" / f"{stack.name}.restoring"
    for number, share in enumerate(points):
        kill = drill.killed("restore", share, *arguments)
        if mark.exists():
            refused = stack.try_up()
            assert refused.code == 1
            assert "did not finish" in refused.stderr
            kill.found = "the stack is marked as not complete"
            if number + 1 < len(points):
                # The run that starts over is killed, too.
                kill.then = "restore, killed"
                tell(kill.row())
                continue
            drill.then(kill, *arguments)
        else:
            kill.found = ", ".join(problems(stack))
            drill.then(kill, *up(stack))
        in_order(kept, drill)
    kept.check(SMALLEST)
    enough(drill, "restore", record_property)


def test_an_upgrade(kept: Kept, drill: Drill, record_property: Callable[[str, object], None]) -> None:
    stack = kept.stack
    arguments = ("upgrade", NEWER, "--stack", stack.name, "--yes")
    back = ("rollback", "--stack", stack.name, "--yes-delete-data-of", stack.name)
    drill.lengths["upgrade"] = drill.run(*arguments)
    kept.check(NEWER)
    succeeded(stack.kit(*back))
    kept.check(SMALLEST)
    for number, share in enumerate(drill.points("upgrade")):
        kill = drill.killed("upgrade", share, *arguments)
        note = _journal(stack)
        on = number % 2 == 0 and kill.processes > 0
        kill.found = ", ".join(problems(stack))
        assert ("upgrade" in kill.found) == (note not in {"", "done"}), (note, kill.found)
        if on:
            drill.then(kill, *arguments)
            in_order(kept, drill)
        if note or on:
            drill.then(kill, *back)
        in_order(kept, drill)
        assert stack.outputs()["release"] == SMALLEST
    kept.check(SMALLEST)
    enough(drill, "upgrade", record_property)


def _journal(stack: Stack) -> str:
    """Return where the upgrade of a stack is by its journal; empty without one."""
    path = stack.home / "runs" / f"{stack.name}.upgrade"
    return str(json.loads(path.read_bytes())["state"]) if path.exists() else ""
