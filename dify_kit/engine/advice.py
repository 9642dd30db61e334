"""What to do about failures of Pulumi that are known: the sign in its output, and the next step."""

from collections.abc import Callable

from infra import hints

_EXPLANATIONS: tuple[tuple[str, Callable[[str], str]], ...] = (
    (
        "incorrect passphrase",
        lambda _: (
            "the passphrase does not fit this stack's secrets: restore the passphrase file from your backup"
        ),
    ),
    (
        "currently locked by",
        lambda stack: (
            f"wait for the other run, or end its lock: {hints.pulumi('cancel', '--yes', stack=stack)}"
        ),
    ),
    ("no stack named", lambda stack: f"`{hints.kit('up', stack=stack)}` creates and deploys it"),
    ("no language plugin", lambda _: f"`{hints.kit('setup')}` installs the Pulumi engine"),
    ("no resource plugin", lambda _: f"`{hints.kit('setup')}` installs the Docker provider"),
    (
        "Cannot connect to the Docker daemon",
        lambda _: f"start the Docker engine (`{hints.kit('setup')}`), or check DOCKER_HOST",
    ),
    (
        # Of Kubernetes; the engine's words follow.
        "provided port is already allocated",
        lambda stack: (
            "another Service of the cluster has this node port: "
            f"`{hints.assign('kubernetes.nodePort', '0', stack=stack)}` lets the cluster choose one, or name a free one"
        ),
    ),
    (
        "port is already allocated",
        lambda stack: (
            "stop what listens there, or choose another port: " + hints.assign("httpPort", stack=stack)
        ),
    ),
    (
        "is already in use by container",
        lambda _: "remove or rename that container; its name belongs to this stack",
    ),
    ("no space left on device", lambda _: "free disk space: `docker system df` shows what Docker holds"),
)


def explain(output: str, stack: str) -> str:
    """Return what to do about a known failure, or an empty string."""
    return next((fix(stack) for sign, fix in _EXPLANATIONS if sign in output), "")
