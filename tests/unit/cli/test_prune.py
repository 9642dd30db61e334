"""`dify-kit prune`: only what no stack needs is listed, and only that is removed."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dify_kit.__main__ import app
from dify_kit.errors import KitError
from dify_kit.images.wanted import Wanted
from dify_kit.pruning import images
from dify_kit.pruning.images import Found
from dify_kit.setup import engine_build, kubernetes_provider
from dify_kit.upgrade.journal import Journal, Kind, State, Step
from dify_kit.upgrade.path import Written
from infra.catalogue.releases import RELEASES
from infra.platforms.images import local_name
from tests.unit.cli.conftest import Machine

NEWEST = next(iter(RELEASES))
OLD = "1.12.1"
DIFY = RELEASES[NEWEST].images["api"].repository


@dataclass
class Store:
    """An engine's images, in memory."""

    found: list[Found] = field(default_factory=list)
    in_containers: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    removed: list[str] = field(default_factory=list)

    def images(self) -> Sequence[Found]:
        return self.found

    def used(self) -> Collection[str]:
        return self.in_containers

    def remove(self, name: str) -> None:
        if name in self.refused:
            raise KitError(f"cannot remove image {name}: conflict", "see `docker images`")
        self.removed.append(name)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return an engine without images."""
    made = Store()
    monkeypatch.setattr(images, "DockerStore", lambda: made)
    return made


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache of the kit."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "dify-kit"


def image(*names: str, size: int = 1000) -> Found:
    return Found(id=f"id of {names[0]}", names=names, size=size)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["prune", *arguments])


def listed(*arguments: str) -> list[str]:
    return [one["name"] for one in json.loads(run("--json", *arguments).stdout)["leftovers"]]


def test_what_no_stack_needs_is_listed_and_removed(machine: Machine, store: Store) -> None:
    machine.configure(images="registry", release=NEWEST)
    store.found = [image(f"{DIFY}:{NEWEST}"), image(f"{DIFY}:{OLD}", size=5000)]

    shown = run()
    removed = run("--yes")

    assert (shown.exit_code, removed.exit_code) == (0, 0), shown.output + removed.output
    assert [line.split()[:4] for line in shown.stdout.splitlines() if line.startswith("image")] == [
        ["image", "4.9", "KiB", f"{DIFY}:{OLD}"]
    ]
    assert store.removed == [f"{DIFY}:{OLD}"]


def test_without_a_terminal_nothing_is_removed(machine: Machine, store: Store) -> None:
    machine.configure()
    store.found = [image(f"{DIFY}:{OLD}")]

    done = run()

    assert done.exit_code == 0
    assert "nothing was removed" in done.output
    assert not store.removed


def test_images_that_stacks_run_stay(machine: Machine, store: Store) -> None:
    machine.configure("dev", images="local")
    machine.configure("prod", images="mirror", mirror="registry.example.com/dify", release=NEWEST)
    machine.configure("old", images="registry", release=OLD)
    store.found = [
        image(local_name("api")),
        image(local_name("nginx")),
        image(f"registry.example.com/dify/{DIFY}:{NEWEST}"),
        image(f"{DIFY}:{OLD}"),
        image("dify-kit/standin-api:0123456789ab"),
        image(f"registry.example.com/dify/{DIFY}:{OLD}"),
    ]

    assert listed() == ["dify-kit/standin-api:0123456789ab", f"registry.example.com/dify/{DIFY}:{OLD}"]


def test_an_image_that_was_pulled_by_digest_is_known_by_it(
    machine: Machine, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.configure(images="registry")
    digest, other = (f"sha256:{part * 32}" for part in ("ab", "cd"))
    run_by_digest = Wanted(
        roles=("api",), reference=f"{DIFY}:{NEWEST}@{digest}", name=f"{DIFY}:{NEWEST}", origin="docker.io"
    )
    monkeypatch.setattr(images, "wanted", lambda *_: [run_by_digest])
    # As the engine shows what it pulled by digest.
    store.found = [image(f"{DIFY}@{digest}"), image(f"{DIFY}@{other}")]

    assert listed() == [f"{DIFY}@{other}"]


def test_images_of_others_and_of_containers_stay(machine: Machine, store: Store) -> None:
    machine.configure()
    used = image(f"{DIFY}:{OLD}")
    store.found = [
        used,
        image("postgres:15-alpine"),
        image("example/dify-api-helper:1"),
        # Somebody's own name of an image of the kit: it has a use that is not known here.
        image("dify-kit/nginx:0123456789ab", "shop/nginx:1"),
    ]
    store.in_containers = {used.id}

    assert listed() == []
    assert "nothing is left over" in run().output


def test_the_release_before_an_upgrade_stays_until_the_next_one(machine: Machine, store: Store) -> None:
    machine.configure(images="registry", release=NEWEST)
    upgraded(machine, OLD, "")
    store.found = [image(f"{DIFY}:{OLD}"), image(f"{DIFY}:1.14.2")]

    assert listed() == [f"{DIFY}:1.14.2"]


def upgraded(machine: Machine, release: str, archive: str) -> None:
    Journal(
        stack="dev",
        began="2026-11-30T02:00:00+00:00",
        release=release,
        weaviate_version="",
        written=Written(release=release),
        target=NEWEST,
        steps=(Step(kind=Kind.MOVE, release=NEWEST),),
        archive=archive,
    ).save(machine.files(), state=State.DONE, at=1)


def test_of_the_archives_of_upgrades_the_newest_and_the_needed_stay(machine: Machine, store: Store) -> None:
    del store
    machine.configure()
    backups = machine.files().data.backups
    backups.mkdir()
    first, second, third = (
        backups / f"dify-dev-2026{month}01-020000.dify-backup" for month in ("08", "09", "10")
    )
    of_another = backups / "dify-gone-20260101-020000.dify-backup"
    for path in (first, second, third, of_another, backups / "passphrase"):
        path.write_text("x")
    upgraded(machine, OLD, str(second))

    assert listed() == [str(first)]
    assert run("--yes").exit_code == 0
    assert sorted(path.name for path in backups.iterdir()) == sorted(
        one.name for one in (second, third, of_another, backups / "passphrase")
    )


def test_builds_of_other_versions_go(machine: Machine, store: Store, cache: Path) -> None:
    del store
    machine.configure()
    current = (engine_build.engine().directory, kubernetes_provider.provider_build().directory)
    old = cache / "engine" / "pulumi-3.1.0-0123456789ab"
    for path in (*current, old / "bin", cache / "engine" / ".new-x", cache / "keycloak-26"):
        path.mkdir(parents=True)
    (old / "bin" / "pulumi").write_text("program")

    document = json.loads(run("--json").stdout)

    assert document == {
        "bytes": 7,
        "leftovers": [
            {"kind": "cache", "name": str(old), "bytes": 7, "why": "this checkout uses another version"}
        ],
    }
    assert run("--yes").exit_code == 0
    assert not old.exists()
    assert all(path.is_dir() for path in current)


def test_what_cannot_be_removed_is_reported_and_the_others_go(machine: Machine, store: Store) -> None:
    machine.configure()
    store.found = [image(f"{DIFY}:{OLD}"), image("dify-kit/nginx:0123456789ab")]
    store.refused = {"dify-kit/nginx:0123456789ab"}

    done = run("--yes")

    assert done.exit_code == 1
    assert store.removed == [f"{DIFY}:{OLD}"]
    assert "cannot remove image dify-kit/nginx:0123456789ab: conflict" in done.stderr
    assert "1 thing(s) could not be removed" in done.stderr


def test_nothing_is_listed_while_a_stack_cannot_be_read(machine: Machine, store: Store) -> None:
    machine.configure("broken", release="0.0.1")
    store.found = [image(f"{DIFY}:{OLD}")]

    done = run("--yes")

    assert done.exit_code == 1
    assert "what stack broken runs is not known" in done.stderr
    assert not store.removed


def test_json_and_yes_exclude_each_other(machine: Machine, store: Store) -> None:
    machine.configure()

    assert run("--json", "--yes").exit_code == 2
    assert not store.removed
