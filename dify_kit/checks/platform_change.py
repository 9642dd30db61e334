"""Refuses another `dify:platform` for a stack that runs: the other one would start with empty volumes."""

from dify_kit.engine.state import StackState
from dify_kit.errors import KitError
from dify_kit.workspace.files import StackFiles
from infra import hints
from infra.settings.kubernetes import DOCKER, KUBERNETES

# Parts of the URNs of what runs services.
_RUNS = {DOCKER: "docker:index/container:Container::", KUBERNETES: "kubernetes:apps/v1:"}


def refuse(state: StackState, files: StackFiles) -> None:
    """Raise KitError when services of the stack are on another platform than its settings say."""
    stack, platform = files.stack, files.config().get("dify:platform") or DOCKER
    others = [other for other, part in _RUNS.items() if other != platform and _any(state, part)]
    if not others:
        return
    (other,) = others
    guide = (
        "docs/guides/kubernetes.md says how to move the data"
        if platform == KUBERNETES
        else "back up its data there first"
    )
    back = hints.assign("platform", other, stack=stack)
    down = hints.kit("down", stack=stack)
    raise KitError(
        f"dify:platform: {platform}: the stack's services and its data are on {other}, and {platform} would start with "
        "empty volumes",
        f"`{back}`. To move the stack, {guide}; then `{down}` with that setting, and change it afterwards",
    )


def _any(state: StackState, part: str) -> bool:
    return any(part in urn for urn in state.urns)
