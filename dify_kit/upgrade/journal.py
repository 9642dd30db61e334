"""The journal of an upgrade: which steps it has and which one runs, in a file next to the stack's state.

It is written before each step and stays after the last one, until the next upgrade: `rollback` finds the archive by it.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from dify_kit.errors import KitError
from dify_kit.upgrade.path import Move, Written
from dify_kit.workspace.files import StackFiles, write_private
from infra import hints

FORMAT = 1


class Kind(StrEnum):
    """What a step does: get images, back the stack up, deploy one place of the path, test the result."""

    FETCH = "fetch"
    BACKUP = "backup"
    MOVE = "move"
    SMOKE = "smoke"


class State(StrEnum):
    """Where an upgrade is."""

    RUNNING = "running"
    DONE = "done"
    ROLLING_BACK = "rolling back"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step. `release` and `weaviate` are those of a move (`dify_kit.upgrade.path.Move`)."""

    kind: Kind
    release: str = ""
    weaviate: str = ""

    @property
    def move(self) -> Move:
        """The place that a move leads to."""
        return Move(release=self.release, weaviate=self.weaviate)

    def text(self) -> str:
        """Say what the step does."""
        if self.kind is Kind.MOVE:
            return f"deploy Dify {self.release}" + (
                f" with Weaviate {self.weaviate}" if self.weaviate else ""
            )
        return {
            Kind.FETCH: "get the images that are missing",
            Kind.BACKUP: "back the stack up",
            Kind.SMOKE: "run the smoke tests",
        }[self.kind]


@dataclass(frozen=True, kw_only=True)
class Journal:
    """An upgrade. `at` is the index of the step that runs, the number of steps once all are done.

    `release` and `weaviate_version` are the settings before it, `written` what the data said then. `archive` is the
    backup, empty without one, `passphrase_file` where its passphrase is, `backed_up` its time. `settings` is the
    stack's file before its first change. `seconds` is the time of each step by its index, `away` for how long
    the api did not answer.
    """

    stack: str
    began: str
    release: str
    weaviate_version: str
    written: Written
    target: str
    steps: tuple[Step, ...]
    at: int = 0
    state: State = State.RUNNING
    archive: str = ""
    passphrase_file: str = ""
    backed_up: str = ""
    settings: str = field(default="", repr=False)
    seconds: dict[str, float] = field(default_factory=dict)
    away: float = 0.0

    @property
    def step(self) -> Step:
        """The step that runs."""
        return self.steps[self.at]

    def place(self) -> str:
        """Say which step runs."""
        if self.at == len(self.steps):
            return "its end"
        return f"step {self.at + 1} of {len(self.steps)} ({self.step.text()})"

    def moved(self) -> bool:
        """Whether a step that changes the stack has begun."""
        return any(one.kind is Kind.MOVE for one in self.steps[: self.at + 1])

    def on_and_back(self) -> tuple[str, str]:
        """Return the commands that continue the upgrade, and that take it back."""
        return hints.kit("upgrade", self.target, stack=self.stack), hints.kit("rollback", stack=self.stack)

    def save(self, files: StackFiles, **changed: Any) -> "Journal":  # noqa: ANN401  # fields of this class
        """Write the journal with these fields changed, and return it. Other users cannot read it."""
        found = replace(self, **changed)
        document = {"format": FORMAT, **asdict(found)}
        write_private(files.data.upgrade(files.stack), json.dumps(document, indent=1) + "\n")
        return found


def load(files: StackFiles) -> Journal | None:
    """Return the journal of the stack's last upgrade; None without one. Raises KitError for one that is damaged."""
    path = files.data.upgrade(files.stack)
    try:
        document = json.loads(path.read_bytes())
        if document.pop("format") != FORMAT:
            raise _damaged(path, "it has another format")
        return Journal(
            **{
                **document,
                "written": Written(**document["written"]),
                "steps": tuple(Step(**{**one, "kind": Kind(one["kind"])}) for one in document["steps"]),
                "state": State(document["state"]),
            }
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as problem:
        raise _damaged(path, f"{type(problem).__name__}: {problem}") from None


def remove(files: StackFiles) -> None:
    """Remove the journal: there is nothing to continue or to take back."""
    files.data.upgrade(files.stack).unlink(missing_ok=True)


def _damaged(path: Path, why: str) -> KitError:
    return KitError(
        f"the journal of the upgrade, {path}, cannot be read: {why}",
        "move it away; the archive that the upgrade made can be restored by `restore` with --replace, and `up` deploys "
        "what the settings say",
    )
