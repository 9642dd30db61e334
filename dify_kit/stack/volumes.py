"""The volumes under a stack's names on the engine: those that carry its label, and those of others."""

from collections.abc import Sequence
from dataclasses import dataclass

from dify_kit.containers.docker_host import Engine
from dify_kit.errors import KitError
from infra import hints
from infra.catalogue.service import Keep
from infra.guards.volumes import STACK_LABEL, names


@dataclass(frozen=True, kw_only=True)
class Volumes:
    """Names of volumes: the stack's `own`, and `foreign` ones that have a name of the stack and not its label."""

    stack: str
    own: Sequence[str]
    foreign: Sequence[str]

    def refuse_foreign(self) -> None:
        """Raise KitError when data of others would have to be deleted."""
        if self.foreign:
            keep = hints.kit("down", stack=self.stack)
            raise KitError(
                f"not made by stack {self.stack}, as the label {STACK_LABEL} is another one or missing: "
                f"{', '.join(self.foreign)}; nothing was deleted",
                f"without --delete-data all volumes stay: {keep}; a volume whose content may be lost: "
                f"docker volume rm {' '.join(self.foreign)}",
            )


def find(engine: Engine, stack: str, *keep: Keep) -> Volumes:
    """Return the volumes under the stack's names that exist; those of all kinds without `keep`."""
    labels = engine.volume_labels(names(stack, *keep))
    own = [name for name in labels if labels[name].get(STACK_LABEL) == stack]
    return Volumes(stack=stack, own=own, foreign=[name for name in labels if name not in own])
