"""The README's lines for plain Pulumi, run as they are: with Pulumi's own commands alone, after `make setup`."""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from dify_kit.stack import addresses
from infra.catalogue.project import ROOT
from support.stacks import SMALLEST, UP_SECONDS, Done, Stack

STEPS = ("settings", "preview", "up", "output", "key", "destroy")


def lines() -> dict[str, str]:
    """Return the README's lines by step: all before the preview are about settings."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^## Plain Pulumi\n.*?^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    before, preview, rest = block.partition("pulumi preview\n")
    return dict(zip(STEPS, [before, preview, *rest.splitlines()], strict=True))


class Shell:
    """Runs lines of the README for one stack, with an own name and port, and with Pulumi's own home."""

    def __init__(self, stack: Stack, home: Path) -> None:
        self.stack, self._home = stack, home
        self._lines = lines()

    @property
    def environment(self) -> Mapping[str, str]:
        given = {name: value for name, value in self.stack.environment.items() if name != "DIFY_KIT_STACK"}
        # Pulumi keeps the selected stack there, of which the checkout has one.
        return given | {"PULUMI_HOME": str(self._home), "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}"}

    def run(self, *steps: str) -> Done:
        prepare, *rest = self._lines["settings"].splitlines(keepends=True)
        given = {**self._lines, "settings": "".join(rest)}
        script = prepare + "".join(f"{given.get(step, step)}\n" for step in steps)
        for written, own in (("plain", self.stack.name), ("8090", str(self.stack.port))):
            assert written in self._lines["settings"]
            script = script.replace(written, own)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=UP_SECONDS, check=False,
        )  # fmt: skip
        return Done(code=done.returncode, stdout=done.stdout, stderr=done.stderr, seconds=0)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    stack = Stack(home=tmp_path_factory.mktemp("home"))
    shell = Shell(stack, tmp_path_factory.mktemp("pulumi"))
    try:
        setup = subprocess.run(
            ["dify-kit", "setup"], env=shell.environment, capture_output=True, text=True, check=False, timeout=600
        )  # fmt: skip
        assert setup.returncode == 0, setup.stderr
        # The release with the fewest services.
        made = shell.run("settings", f"pulumi config set dify:release {SMALLEST}")
        assert made.code == 0, made.output
        yield shell
    finally:
        stack.remove()


def test_the_readmes_lines_deploy_the_stack_and_remove_it(shell: Shell) -> None:
    stack = shell.stack
    planned = shell.run("preview")
    assert planned.code == 0, planned.output
    assert "using pulumi-resource-docker" not in planned.output

    deployed = shell.run("up", "output", "key")

    assert deployed.code == 0, deployed.output[-6000:]
    address, key = deployed.stdout.split()[-2:]
    assert address == f"{stack.url}/v1"
    assert key.startswith("app-")
    warnings = [line for line in deployed.output.splitlines() if "warning: " in line]
    # The release is an old one.
    assert [line for line in warnings if "CVE-" not in line] == []

    exported = shell.run("pulumi stack output --json")
    outputs = json.loads(exported.stdout)
    asked = shell.run(addresses.first_request(outputs, stack.name))
    assert asked.code == 0, asked.output
    assert "hello" in json.loads(asked.stdout)["answer"]

    unchanged = shell.run("pulumi preview --expect-no-changes")
    assert unchanged.code == 0, unchanged.output

    removed = shell.run("destroy")
    assert removed.code == 0, removed.output[-6000:]
    assert stack.containers() == {}
    assert stack.volumes() != []


def test_wrong_settings_are_all_told_with_the_next_step(shell: Shell) -> None:
    name = shell.stack.name
    broken = shell.run(
        "pulumi config set dify:httpPort abc",
        """pulumi config set dify:llm '{"enabled": true}'""",
        "pulumi config rm dify:secretKey",
        "preview",
    )

    assert broken.code != 0
    assert "dify:httpPort: 'abc': not a whole number in range; use a number from 1 to 65535" in broken.output
    assert f"dify:secretKey: the secret is not set; `dify-kit set secretKey --generate --stack {name}`" in (
        broken.output
    )
    assert f"run `dify-kit keys set holysheep --stack {name}`" in broken.output
    assert "Traceback" not in broken.output

    mended = shell.run(
        f"dify-kit unset llm --stack {name}",
        f"dify-kit set secretKey --generate --stack {name}",
        f"dify-kit set httpPort 8090 --stack {name}",
    )
    assert mended.code == 0, mended.output
