"""The secret of the OAuth gateway, for stacks that were created before it had one."""

from dify_kit.engine.cli import Pulumi
from dify_kit.stack import settings
from dify_kit.talk import say
from dify_kit.workspace.files import PROJECT
from infra.settings.secrets import SHAPES

SETTING = f"{PROJECT}:gatewaySecret"


def ensure(pulumi: Pulumi) -> None:
    """Make the secret of a stack that has OAuth or the gate, and none."""
    wanted = any(settings.section(pulumi.files, part).boolean("enabled") for part in ("oauth", "oidcGate"))
    generate = SHAPES["gatewaySecret"].generate
    if wanted and SETTING not in pulumi.files.config() and generate:
        # By stdin: arguments are in the process list.
        pulumi.run("config", "set", "--secret", SETTING, stdin=generate())
        say(f"made the secret of the gateway of stack {pulumi.files.stack}")
