"""Forget a stack: remove everything of it from this machine, after its containers are gone."""

import os
import shutil
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from dify_kit.containers.docker_host import Engine
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import KitError
from dify_kit.stack import leftovers, volumes
from dify_kit.stack import settings as stack_settings
from dify_kit.workspace.files import StackFiles
from infra import hints
from infra.guards.volumes import STACK_LABEL
from infra.settings.oauth_clients import clients_path

_CREDENTIALS = "credentials.json"


@dataclass(frozen=True, kw_only=True)
class Belongings:
    """What there is of a stack. `kept` are files of the operator's own, which stay.

    `state`: whether Pulumi's backend has the stack. `backend` are the backend's files where it is on this machine.
    `foreign` are volumes that have a name of the stack's and not its label: they stay.
    """

    settings: Path | None
    lists: Sequence[Path]
    link: Path | None
    state: bool
    backend: Sequence[Path]
    records: Sequence[Path]
    volumes: Sequence[str]
    foreign: Sequence[str]
    kept: Sequence[Path]

    def __bool__(self) -> bool:
        """Whether there is anything that can be removed, with or without the data."""
        return bool(self.settings or self.lists or self.link or self.state or self.backend or self.volumes)

    def described(self, *, delete_data: bool) -> list[str]:
        """Return a line for each thing that is removed."""
        lines = []
        if self.settings:
            lines.append(f"settings and secrets: {self.settings}")
        lines += [f"clients and issued keys: {path}" for path in self.lists]
        if self.state:
            lines.append("Pulumi's state, its history and its backups")
        elif self.backend:
            lines.append("history and backups of Pulumi's state")
        if self.link:
            lines.append(f"link: {self.link}")
        lines += [f"record of runs: {path}" for path in self.records]
        if delete_data:
            lines += [f"volume with its data: {name}" for name in self.volumes]
        return lines


def find(pulumi: Pulumi, engine: Engine) -> Belongings:
    """Return what there is of a stack on this machine and its engine."""
    files = pulumi.files
    own = files.own_file()
    there = volumes.find(engine, files.stack)
    return Belongings(
        settings=files.stored if files.stored.exists() else None,
        lists=leftovers.lists_of(files),
        link=files.linked if files.linked.is_symlink() and not own else None,
        state=pulumi.created(),
        backend=pulumi.backend.files() if pulumi.backend else [],
        records=_records(files),
        volumes=there.own,
        foreign=there.foreign,
        kept=[*([files.linked] if own else []), *_clients_elsewhere(files)],
    )


def refuse_running(pulumi: Pulumi, engine: Engine) -> None:
    """Raise KitError while containers, networks or resources of the stack are there."""
    files = pulumi.files
    stack = files.stack
    there = [container.name for container in engine.containers(stack)]
    there += [network.name for network in engine.networks(stack)]
    if there and not files.configured():
        label = f"--filter label={STACK_LABEL}={stack}"
        raise KitError(
            f"stack {stack} is not configured here, and this is still there: {', '.join(there)}",
            f"docker rm --force $(docker ps --all --quiet {label}); docker network prune --force {label}",
        )
    down = hints.kit("down", stack=stack)
    if there:
        raise KitError(f"stack {stack} is not down: {', '.join(there)}", down)
    resources = len(pulumi.state().urns)
    if not resources:
        return
    if files.configured():
        raise KitError(f"stack {stack} is not down: Pulumi's state has {resources} resource(s)", down)
    if not pulumi.backend:
        # Others deploy from this backend too: this machine's engine having nothing of the stack says nothing.
        removal = hints.pulumi("stack", "rm", "--force", stack=stack)
        raise KitError(
            f"stack {stack} is not down: the state in Pulumi's backend has {resources} resource(s), which may "
            "run on another machine; nothing was removed",
            f"where its settings are ({files.stored.name}), or after you restored them here: {down}; when you are "
            f"certain that nothing of it is left: {removal}",
        )


def forget(
    pulumi: Pulumi, engine: Engine, found: Belongings, *, delete_data: bool, keep: Collection[Path] = ()
) -> None:
    """Remove what was found but `keep`. Repeating it after an interruption removes the rest."""
    files = pulumi.files
    if delete_data:
        for volume in volumes.find(engine, files.stack).own:
            engine.remove_volume(volume)
    # Keys and clients before the settings that say where they are.
    for path in found.lists:
        path.unlink(missing_ok=True)
    if found.state:
        _remove_state(pulumi)
    for path in found.backend:
        remove_path(path)
    for one in (found.link, found.settings, *found.records):
        if one and one not in keep:
            remove_path(one)
    if not files.own_file() and files.linked.is_symlink():
        files.linked.unlink()


def _remove_state(pulumi: Pulumi) -> None:
    """Remove the stack from Pulumi's backend. `pulumi stack rm` deselects the selected stack, whichever that is."""
    real = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    with tempfile.TemporaryDirectory(prefix="dify-kit-") as home:
        if (real / _CREDENTIALS).exists():
            (Path(home) / _CREDENTIALS).symlink_to(real / _CREDENTIALS)
        pulumi.run(
            "stack",
            "rm",
            "--yes",
            "--force",
            "--preserve-config",
            "--remove-backups",
            extra={"PULUMI_HOME": home},
        )


def _records(files: StackFiles) -> list[Path]:
    data, stack = files.data, files.stack
    logs = [data.logs / f"{stack}-{verb}.log" for verb in ("up", "destroy", "preview", "refresh")]
    runs = [data.runs / f"{stack}.json", data.runs / f"{stack}.events", data.backup(stack)]
    kept = [data.restored(stack), data.planned(stack), data.restoring(stack), data.upgrade(stack)]
    kept.append(data.backing_up(stack))
    return [path for path in (*logs, *runs, *kept) if path.exists()]


def _clients_elsewhere(files: StackFiles) -> list[Path]:
    """Return the clients' file that the settings name; a new stack has it only when its settings name it too."""
    try:
        given = stack_settings.section(files, "oauth").text("clientsFile")
    except KitError:
        return []
    path = clients_path(files.stack, files.config_file, given) if given else None
    return [path] if path and path.exists() else []


def remove_path(path: Path) -> None:
    """Remove a file, or a directory with all that is in it; one that is missing is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
