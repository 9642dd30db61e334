"""Protected stacks (`dify:protect`): what commands refuse or ask for, and how Pulumi lets go of them."""

from collections.abc import Callable

from dify_kit.engine.cli import Pulumi
from dify_kit.engine.state import StackState
from dify_kit.errors import KitError
from dify_kit.stack import settings as stack_settings
from dify_kit.workspace.files import StackFiles
from infra import hints
from infra.settings.protection import PROTECT


def protected(files: StackFiles) -> bool:
    """Return whether the settings protect the stack. Raises KitError when its file cannot be read."""
    return files.configured() and stack_settings.given(files).values.get(PROTECT) in (True, "true")


def refuse_data_loss(files: StackFiles, action: str) -> None:
    """Raise KitError when the stack is protected; `action` says what does not happen."""
    if protected(files):
        raise KitError(
            f"stack {files.stack} is protected (dify:{PROTECT} is true): {action}",
            f"first remove the protection: {hints.assign(PROTECT, 'false', stack=files.stack)}",
        )


def unprotect(pulumi: Pulumi, state: StackState, say: Callable[[str], None]) -> None:
    """Let Pulumi delete what its state protects. The volumes themselves stay; the next `up` protects them again."""
    if state.protected:
        say(f"  - {len(state.protected)} protected resource(s) of the state released; the volumes stay")
        pulumi.run("state", "unprotect", "--all", "--yes")
