"""What an earlier stack of the same name left: files, state, volumes. A new stack must not take them over silently.

An issued key would be valid again, a client could get tokens, and data would be opened with other secrets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dify_kit.containers.docker_host import Engine
from dify_kit.engine.state import StackState
from dify_kit.errors import KitError
from dify_kit.stack import volumes
from dify_kit.workspace.files import StackFiles
from infra import hints
from infra.catalogue.service import Keep
from infra.settings import proxy_keys
from infra.settings.oauth_clients import clients_path


@dataclass(frozen=True, kw_only=True)
class Leftovers:
    """Files of callers and clients, the number of resources in the state, and volumes that outlive a stack."""

    files: Sequence[Path]
    resources: int
    volumes: Sequence[str]

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.files or self.resources or self.volumes)

    def described(self) -> list[str]:
        """Return a line for each kind of leftover."""
        lines = [f"{path} ({_MEANING[path.name.partition('.')[0]]})" for path in self.files]
        if self.resources:
            lines.append(f"Pulumi's state, with {self.resources} resource(s)")
        if self.volumes:
            lines.append(f"volumes with data: {', '.join(self.volumes)}")
        return lines


_MEANING = {
    "proxy-keys": "keys issued to callers of the LLM proxy, which would be valid again",
    "clients": "OAuth clients, which could get tokens again",
}


def lists_of(files: StackFiles) -> list[Path]:
    """Return the files that hold clients and issued keys, next to where the stack's settings are, or were."""
    settings = files.config_file
    paths = (proxy_keys.file_of(settings, files.stack), clients_path(files.stack, settings))
    # Settings of the operator's own in the checkout may be gone while what was next to them is still there.
    folders = dict.fromkeys((paths[0].parent, files.stored.parent, files.checkout))
    return [folder / path.name for folder in folders for path in paths if (folder / path.name).exists()]


def find(files: StackFiles, engine: Engine, state: StackState) -> Leftovers:
    """Return what an earlier stack of this name left on this machine and its engine."""
    return Leftovers(
        files=lists_of(files),
        resources=len(state.urns),
        # A guard refuses those of others, and says so.
        volumes=volumes.find(engine, files.stack, Keep.DATA, Keep.RECORDS).own,
    )


def refuse(files: StackFiles, engine: Engine, state: StackState) -> None:
    """Raise KitError when there is anything of an earlier stack of this name. Only for one without settings."""
    found = find(files, engine, state)
    if not found:
        return
    stack = files.stack
    listed = "\n".join(f"  - {line}" for line in found.described())
    removal = hints.kit("forget", stack, *(["--delete-data"] if found.volumes else []))
    raise KitError(
        f"stack {stack} is not configured here, but an earlier stack of this name left:\n{listed}",
        f"{removal} removes it for good; to continue with it, restore the data directory "
        f"({files.data.root}) from your backup; or choose another stack name",
    )
