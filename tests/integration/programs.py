"""Pulumi programs that a test writes itself: each has a directory with its state, and one stack."""

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from dify_kit.setup import engine_env
from infra.catalogue.project import ROOT
from support.stacks import Done

PULUMI_SECONDS = 180


@dataclass(kw_only=True)
class Program:
    """A program whose directory, with its state, is `home`. A subclass names its source and its values."""

    home: Path

    def __post_init__(self) -> None:
        """Write the program and make its stack, unless it is a copy of one."""
        if self.home.exists():
            return
        (self.home / "state").mkdir(parents=True)
        (self.home / "__main__.py").write_text(self.source, encoding="utf-8")
        runtime = {"name": "python", "options": {"toolchain": "pip", "virtualenv": str(ROOT / ".venv")}}
        project = json.dumps({"name": "test-program", "runtime": runtime})
        (self.home / "Pulumi.yaml").write_text(project, encoding="utf-8")
        assert self.pulumi("stack", "init", "test", "--no-select").code == 0

    @property
    def source(self) -> str:
        """The text of the program."""
        raise NotImplementedError

    @property
    def values(self) -> dict[str, Any]:
        """What the program finds, as JSON, in the variable TEST_VALUES."""
        raise NotImplementedError

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every command."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PULUMI_")}
        return {
            **kept,
            **engine_env(),
            "PULUMI_BACKEND_URL": f"file://{self.home / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": "test",
            "PULUMI_SKIP_UPDATE_CHECK": "1",
            "PULUMI_STACK": "test",
            "TEST_VALUES": json.dumps(self.values),
        }

    def pulumi(self, *arguments: str, stdin: str = "") -> Done:
        """Run `pulumi` and return what it said, whatever its exit code."""
        started = time.monotonic()
        done = subprocess.run(
            ["pulumi", *arguments],
            cwd=self.home,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PULUMI_SECONDS,
            check=False,
        )
        seconds = time.monotonic() - started
        return Done(code=done.returncode, stdout=done.stdout, stderr=done.stderr, seconds=seconds)

    def set_secret(self, name: str, value: str) -> None:
        """Set one secret setting."""
        done = self.pulumi("config", "set", "--secret", name, stdin=value)
        assert done.code == 0, done.output

    def try_up(self, *, refresh: bool = True) -> Done:
        """Deploy, after a refresh as the kit does it."""
        return self.pulumi("up", "--yes", "--skip-preview", *(["--refresh"] if refresh else []))

    def up(self) -> dict[str, int]:
        """Deploy, demand success, and return what happened: operation -> count."""
        done = self.try_up()
        assert done.code == 0, done.output
        history = self.pulumi("stack", "history", "--json", "--page-size", "1")
        changes: dict[str, int] = json.loads(history.stdout)[0]["resourceChanges"]
        return changes

    def destroy(self) -> Done:
        """Destroy, and demand success."""
        done = self.pulumi("destroy", "--yes", "--skip-preview", "--refresh")
        assert done.code == 0, done.output
        return done

    def steps(self, *arguments: str) -> dict[str, str]:
        """Return what a preview would do: resource name -> operation, without what stays the same."""
        done = self.pulumi("preview", "--json", *arguments)
        assert done.code == 0, done.output
        steps = json.loads(done.stdout).get("steps", [])
        kept = {"same", "read", "refresh"}
        return {step["urn"].rsplit("::", 1)[-1]: step["op"] for step in steps if step["op"] not in kept}

    def on_disk(self) -> list[bytes]:
        """Return every file that Pulumi wrote."""
        return [path.read_bytes() for path in self.home.rglob("*") if path.is_file()]

    def copy(self, home: Path) -> Self:
        """Return this program as it is now, to be changed without changing this one."""
        shutil.copytree(self.home, home)
        return replace(self, home=home)
