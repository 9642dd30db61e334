"""What a guard finds, and what it looks at. The program, `dify-kit up` and `dify-kit doctor` each supply a view."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from infra import hints


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """A running container that publishes a port, and the addresses of the host that it does it on."""

    container: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a stack cannot be deployed: the problem with key and value, and the fix.

    Where a setting has to change, `setting` names it, and `value` is one that fits; without one the
    command prompts for it.
    """

    problem: str
    fix: str
    setting: str = ""
    value: str = ""

    def command(self, stack: str) -> str:
        """Return the command that changes the setting; empty where none has to change."""
        if not self.setting:
            return ""
        return hints.assign(self.setting, *([self.value] if self.value else []), stack=stack)

    def text(self, stack: str) -> str:
        """Return problem and fix together."""
        command = self.command(stack)
        between = "\n" if "\n" in self.fix else "; "
        return f"{self.problem}{between}{self.fix}" + (f": `{command}`" if command else "")


class DataView(Protocol):
    """Where a stack's data is, as far as the guards of external servers look at it."""

    def local(self) -> bool:
        """Whether this machine is expected to reach what the stack reaches."""

    def volume_labels(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """Return the labels of those of the volumes that exist, by names as on an engine."""


class View(Protocol):
    """The engine, as far as the guards look at it. Nothing here changes anything."""

    def local(self) -> bool:
        """Whether the engine runs on this machine, so that its ports and addresses are ours."""

    def publishers(self, port: int) -> Sequence[Publisher] | None:
        """Return the running containers that publish a TCP port; None when the engine does not answer."""

    def volume_labels(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """Return the labels of those of the volumes that exist; none when the engine does not answer."""

    def container_labels(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        """Return the labels of those of the containers that exist; none when the engine does not answer."""

    def image_ids(self, names: Sequence[str]) -> Mapping[str, str]:
        """Return name -> id of those of the images that the engine has. Raises when it does not answer."""
