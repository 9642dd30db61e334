"""The commands that messages name, each as one line that can be pasted into a shell as it stands.

A line names the program by a path that works where the message is read. It names the stack, also the default one: the
reader's shell may name another in DIFY_KIT_STACK. Where the operator chooses the value, the command prompts for it.
"""

import os
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path

from infra.catalogue import checks
from infra.catalogue.project import ROOT

# A command that runs Pulumi passes its own name on: its child has another PATH than the operator's shell.
VARIABLE = "DIFY_KIT_PROGRAM"
PROGRAM = ROOT / ".venv" / "bin" / "dify-kit"
NEAREST = 3


def program() -> str:
    """Return how a shell finds this checkout's `dify-kit`: by name, from the checkout, or by its whole path."""
    if given := os.environ.get(VARIABLE):
        return given
    found = shutil.which(PROGRAM.name)
    if found and Path(found).resolve() == PROGRAM.resolve():
        return PROGRAM.name
    try:
        here = Path.cwd() == ROOT
    except FileNotFoundError:
        here = False
    return shlex.quote(str(PROGRAM.relative_to(ROOT) if here else PROGRAM))


def kit(*words: str, stack: str = "", stdin: str = "") -> str:
    """Return a command of `dify-kit`: its words, quoted, then the stack; `stdin` names a file that it reads."""
    named = [*words, *(["--stack", stack] if stack else [])]
    redirected = f" < {shlex.quote(stdin)}" if stdin else ""
    return f"{program()} {shlex.join(named)}{redirected}"


def make(target: str, stack: str = "") -> str:
    """Return a command of `make`, for what is no command of `dify-kit`."""
    try:
        elsewhere = Path.cwd() != ROOT
    except FileNotFoundError:
        elsewhere = True
    folder = ["-C", str(ROOT)] if elsewhere else []
    return shlex.join(["make", *folder, target, *([f"STACK={stack}"] if stack else [])])


def prepare(stack: str) -> str:
    """Return the command that prepares a shell for plain Pulumi."""
    return f'eval "$({kit("env", stack=stack)})"'


def pulumi(*words: str, stack: str) -> str:
    """Return a command of plain Pulumi, with what a shell needs before it."""
    return f"{prepare(stack)}; {shlex.join(['pulumi', *words, '--stack', stack])}"


def assign(key: str, *value: str, stack: str, stdin: str = "") -> str:
    """Return the command that sets a setting; without a value it prompts for one."""
    return kit("set", key, *value, stack=stack, stdin=stdin)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the question after a wrong name: the three known names that are most like it."""
    found = checks.nearest(name, sorted(set(known)), NEAREST)
    if not found:
        return "there is none"
    *most, last = found
    return f"did you mean {', '.join(most)} or {last}?" if most else f"did you mean {last}?"
