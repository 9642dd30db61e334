"""The secret of the OAuth gateway, for stacks that were created before it had one."""

from dify_kit.engine.cli import Pulumi
from dify_kit.talk import say
from dify_kit.workspace.files import PROJECT
from infra.settings.secrets import SHAPES

SETTING = f"{PROJECT}:gatewaySecret"


def ensure(pulumi: Pulumi) -> None:
    """Make the secret of a stack that has OAuth or the gate, and none."""
    settings = pulumi.files.config()
    wanted = any(
        isinstance(part, dict) and part.get("enabled") in {True, "true"}
        for part in (settings.get(f"{PROJECT}:oauth"), settings.get(f"{PROJECT}:oidcGate"))
    )
    generate = SHAPES["gatewaySecret"].generate
    if wanted and SETTING not in settings and generate:
        # By stdin: arguments are in the process list.
        pulumi.run("config", "set", "--secret", SETTING, stdin=generate())
        say(f"made the secret of the gateway of stack {pulumi.files.stack}")
