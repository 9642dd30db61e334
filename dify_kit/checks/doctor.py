"""All checks of this machine and of a stack's settings, together. Changes nothing without `repair`.

A failed check means that `make up` would fail or that data is at risk.
"""

import datetime as dt
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict

from dify_kit.checks import machine, stack
from dify_kit.checks.machine import EngineFacts, ask_engine
from dify_kit.checks.result import Check, Status, show
from dify_kit.errors import KitError
from dify_kit.setup.pulumi_engine import engine_env
from dify_kit.workspace.files import CHECKOUT, DataDir, StackFiles, check_stack_name


def run_checks(
    name: str,
    *,
    environ: Mapping[str, str] | None = None,
    engine: Callable[[], EngineFacts] = ask_engine,
    environment: Callable[[], Mapping[str, str]] | None = None,
    repair: bool = False,
) -> list[Check]:
    """Make every check for the stack ``name``. Raises UsageError for an impossible stack name, nothing else.

    ``engine`` queries the Docker engine; ``environment`` gives the variables that Pulumi would run under.
    """
    environ = os.environ if environ is None else environ
    # Not StackFiles.open: that prepares directories and links, and here nothing may change.
    files = StackFiles(stack=check_stack_name(name), data=DataDir.locate(environ), checkout=CHECKOUT)
    reading, settings = stack.check_settings(files, environ)
    images = stack.images_of(reading)
    checks = [
        machine.packages(CHECKOUT),
        machine.check_pulumi((environment or _pulumi_environment)(), machine.ask_version),
    ]
    now = dt.datetime.now(tz=dt.UTC)
    try:
        facts = engine()
    except KitError as problem:
        checks.append(
            Check(name="Docker engine", status=Status.FAILED, found=problem.message, hint=problem.hint)
        )
        checks.append(machine.check_clock(now, None))
        if reading and reading.settings.kubernetes:
            # The engine builds images at most: the stack does not run on it.
            checks += stack.check_guards(files, reading)
            checks += stack.check_published(files, repair=repair)
    else:
        checks += [
            machine.check_docker(facts),
            machine.check_memory(facts, images),
            machine.check_base_image(facts, images),
            machine.check_clock(now, facts.clock),
        ]
        checks += stack.check_leftovers(files, environ)
        checks += stack.check_guards(files, reading)
        checks += stack.check_published(files, repair=repair)
        if facts.local:
            checks += machine.disks("Docker's disk", facts.root)
    checks += machine.disks("your disk", machine.existing(files.data.root))
    checks += settings
    checks += stack.check_release(reading)
    checks += stack.check_pins(reading)
    checks += stack.check_gate(reading)
    return checks


def _pulumi_environment() -> Mapping[str, str]:
    return dict(os.environ) | engine_env()


def doctor(name: str = "dev", *, json_output: bool = False, repair: bool = False) -> int:
    """Make every check, print the results on stdout (a table, or JSON), and return the exit code.

    JSON is ``{"ok": bool, "stack": str, "checks": [{"name", "status", "found", "hint"}]}``.
    """
    checks = run_checks(name, repair=repair)
    healthy = all(check.status is not Status.FAILED for check in checks)
    if json_output:
        document = {"ok": healthy, "stack": name, "checks": [asdict(check) for check in checks]}
        print(json.dumps(document, indent=2))  # noqa: T201  # data, on stdout
    else:
        show(checks)
    return 0 if healthy else 1
