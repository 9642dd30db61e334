"""Running Pulumi: its environment, one-off commands, and the long commands with progress and signals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from dify_kit.containers.docker_host import chosen_engine
from dify_kit.engine import advice, objects
from dify_kit.engine.processes import VARIABLE, Run
from dify_kit.engine.progress import Progress, clean, is_noise
from dify_kit.engine.state import FileBackend, StackState
from dify_kit.errors import CancelledError, KitError
from dify_kit.talk import say
from dify_kit.workspace import secrets as stack_secrets
from dify_kit.workspace.files import StackFiles
from infra import hints
from infra.engine import child_environment

QUICK = 120.0
"""Deadline in seconds of commands that only read or write state and configuration."""
# Options of Pulumi that change the form of what it prints, and with it what the kit reads and shows.
_FORMS = ("PULUMI_OPTION_JSON", "PULUMI_OPTION_SHOW_SECRETS")
# What Pulumi answers about a stack that the backend does not have.
_NO_STACK = "no stack named"
# Engine and providers live for seconds: with Go's default (100) an `up` takes 14 % more CPU, for 60 MB less memory.
_GARBAGE = "400"
# Commands that write the stack's file, and the option that names another one.
_WRITING = frozenset({("config", "set"), ("config", "set-all"), ("config", "rm")})
_FILE = "--config-file"
_STOP_GRACE = 90.0
_POLL = 0.1


def pulumi_environment(files: StackFiles, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return ``base`` with what Pulumi needs for this stack: backend, passphrase, engine, packages.

    What the operator has set already wins, so any Pulumi backend and any secrets provider can be used.
    """
    from dify_kit.setup import engine_env  # noqa: PLC0415  # imported late: it probes the machine

    environment = dict(os.environ if base is None else base)
    # The provider chooses by other rules than docker: it gets the choice as variables.
    environment = child_environment(environment, chosen_engine())
    environment.update(engine_env())
    environment.setdefault("PULUMI_BACKEND_URL", f"file://{files.data.state}")
    if not {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & environment.keys():
        environment["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(files.data.passphrase)
    environment.setdefault("PULUMI_SKIP_UPDATE_CHECK", "1")
    # On a cluster the kit owns the fields that it sets: `kubectl scale`, or a run that was cut off, does not lock them.
    environment.setdefault("PULUMI_K8S_ENABLE_PATCH_FORCE", "true")
    environment[hints.VARIABLE] = hints.program()
    # Pulumi starts several Python processes, each of which would compile all packages again: 20 s of an `up`.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment.setdefault("GOGC", _GARBAGE)
    for option in _FORMS:
        environment.pop(option, None)
    return environment


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a long command ended. ``stopped`` tells why it was stopped from outside, if it was."""

    code: int
    progress: Progress
    log: Path
    stopped: str = ""

    @property
    def changes(self) -> int:
        """How many resources were created, updated, replaced or removed."""
        return len(self.progress.changed)


@dataclass(kw_only=True)
class Pulumi:
    """Pulumi for one stack."""

    files: StackFiles
    environment: dict[str, str] = field(default_factory=dict)
    # The copy of the settings that commands change, in the block of `editing`.
    _draft: Path | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Complete the environment, and generate the passphrase when this machine has none."""
        if not self.environment:
            self.environment = pulumi_environment(self.files)
        if self.environment.get("PULUMI_CONFIG_PASSPHRASE_FILE") == str(self.files.data.passphrase):
            self.files.data.ensure_passphrase()

    @property
    def backend(self) -> FileBackend | None:
        """The backend's files when it is on this machine."""
        return FileBackend.from_url(self.environment["PULUMI_BACKEND_URL"], self.files.stack)

    def state(self) -> StackState:
        """Return the resources in Pulumi's state; empty for a stack that was never created. Raises KitError."""
        if self.backend:
            return self.backend.read()
        exported = self._exported()
        return StackState() if exported is None else StackState.parse(exported.get("deployment"))

    def created(self) -> bool:
        """Whether the stack exists in the backend. Raises KitError."""
        if self.backend:
            return self.backend.exists()
        return self._exported() is not None

    def _exported(self) -> dict[str, Any] | None:
        """Return what a backend elsewhere has of the stack; None where it answers that there is no such stack.

        A backend that cannot be reached is an error: an empty state would make all that runs a leftover.
        """
        exported = self.run("stack", "export", check=False)
        if exported.returncode == 0:
            found: dict[str, Any] = json.loads(exported.stdout)
            return found
        output = exported.stderr + exported.stdout
        if _NO_STACK in output:
            return None
        raise KitError(
            f"the state of stack {self.files.stack} cannot be read from Pulumi's backend: {error_text(output)}",
            advice.explain(output, self.files.stack)
            or "make the backend (PULUMI_BACKEND_URL) reachable, then run the same command again",
        )

    @contextmanager
    def editing(self) -> Iterator[Path]:
        """Let commands of the block change a copy of the settings, which takes their place at its end, in one move.

        Until then what reads the settings sees them as they were.
        """
        if self._draft:
            yield self._draft
            return
        with self.files.draft() as draft:
            self._draft = draft
            try:
                yield draft
            finally:
                self._draft = None

    def run(
        self,
        *arguments: str,
        stdin: str = "",
        deadline: float = QUICK,
        check: bool = True,
        extra: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run one short command. Raises KitError with Pulumi's output when it fails."""
        if arguments[:2] in _WRITING and _FILE not in arguments:
            with self.editing() as draft:
                return self.run(
                    *arguments, _FILE, str(draft), stdin=stdin, deadline=deadline, check=check, extra=extra
                )
        command = self._command(*arguments)
        with self.files.writing():
            try:
                done = subprocess.run(
                    command,
                    input=stdin,
                    capture_output=True,
                    text=True,
                    timeout=deadline,
                    check=False,
                    cwd=self.files.checkout,
                    env=self.environment | dict(extra or {}),
                    start_new_session=True,
                )
            except FileNotFoundError:
                raise _engine_missing() from None
            except subprocess.TimeoutExpired:
                raise KitError(
                    f"`pulumi {' '.join(arguments[:2])}` did not end within {deadline:.0f} s",
                    "is the state's backend (PULUMI_BACKEND_URL) reachable? "
                    f"`{hints.kit('doctor', stack=self.files.stack)}` checks it",
                ) from None
        if check and done.returncode != 0:
            stack_secrets.check(self.files, self.environment)
            output = done.stderr + done.stdout
            raise KitError(
                f"`pulumi {' '.join(arguments[:2])}` failed: {error_text(output)}",
                advice.explain(output, self.files.stack),
            )
        return done

    def stream(
        self,
        verb: str,
        *arguments: str,
        deadline: float,
        verbose: bool = False,
        planning: bool = False,
        raw: TextIO | None = None,
        show: Callable[[str], None] = say,
    ) -> Outcome:
        """Run a long command, showing its progress, and return how it ended.

        Pulumi runs in a session of its own. The first SIGINT, SIGTERM or SIGHUP that this process receives is
        passed on as SIGTERM, on which Pulumi ends the operation in flight and releases its lock; the second
        one kills the whole run. ``deadline`` (seconds) works like both, 90 s apart. ``verbose`` shows
        Pulumi's own text.
        """
        stack_secrets.check(self.files, self.environment)
        self.store_objects()
        run = Run.new(verb)
        record = self.files.data.runs / f"{self.files.stack}.json"
        log_path = self.files.data.logs / f"{self.files.stack}-{verb}.log"
        events_path = self.files.data.runs / f"{self.files.stack}.events"
        events_path.unlink(missing_ok=True)
        progress = Progress(
            show=(lambda _line: None) if verbose else show, planning=planning, removing=verb == "destroy"
        )
        command = self._command(verb, *arguments, "--color", "never", "--event-log", str(events_path))
        environment = self.environment | {VARIABLE: run.token, "PULUMI_DEBUG_COMMANDS": "true"}
        with (
            self.files.writing(),
            open(log_path, "w", encoding="utf-8", opener=_private) as log,  # Path.open has no opener
        ):
            output = sys.stderr if verbose else (raw or log)
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output.fileno(),
                    stderr=subprocess.STDOUT if verbose or raw is None else log.fileno(),
                    cwd=self.files.checkout,
                    env=environment,
                    start_new_session=True,
                )
            except FileNotFoundError:
                raise _engine_missing() from None
            run = Run(token=run.token, verb=verb, pid=process.pid)
            run.record(record, process.pid)
            stopped = _follow(process, run, progress, events_path, deadline)
        run.stop(grace=0)
        record.unlink(missing_ok=True)
        events_path.unlink(missing_ok=True)
        return Outcome(code=process.returncode, progress=progress, log=log_path, stopped=stopped)

    def store_objects(self) -> None:
        """Store sections that are JSON text as objects: `pulumi config set --path` changes no part of a text."""
        if not (found := objects.stored_as_text(self.files.config())):
            return
        self.run("config", "set-all", extra={"PULUMI_OPTION_JSON": objects.document(found)})
        say(f"stored {', '.join(sorted(found))} as objects instead of JSON text")

    def _command(self, *arguments: str) -> list[str]:
        # Found on the stack's own PATH: an engine of the cache directory comes before any other.
        return ["pulumi", *arguments, "--stack", self.files.stack, "--non-interactive"]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _engine_missing() -> KitError:
    return KitError("the Pulumi engine is not installed", f"`{hints.kit('setup')}` installs it, or builds it")


def _follow(
    process: subprocess.Popen[bytes], run: Run, progress: Progress, events: Path, deadline: float
) -> str:
    """Wait for ``process``; return why it was stopped, or an empty string when it ended by itself."""
    received: list[int] = []
    asked_at: float | None = None
    stopped = ""
    ends = time.monotonic() + deadline
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def receive(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    reader = _Tail(events)
    try:
        for number in previous:
            signal.signal(number, receive)
        while process.poll() is None:
            progress.feed(reader.read())
            progress.tick()
            now = time.monotonic()
            if asked_at is None and (received or now > ends):
                stopped = (
                    signal.Signals(received[0]).name
                    if received
                    else f"not finished within {deadline:.0f} s; {progress.under_way()}"
                )
                say(f"{stopped}: asking Pulumi to finish what is in flight and stop (once more kills it)")
                process.send_signal(signal.SIGTERM)
                asked_at = now
            elif asked_at is not None and (len(received) > 1 or now > asked_at + _STOP_GRACE):
                process.kill()
                run.stop(grace=0)
            time.sleep(_POLL)
        progress.feed(reader.read())
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if process.poll() is None:
            process.kill()
            run.stop(grace=0)
            process.wait(timeout=10)
    return stopped


class _Tail:
    """Reads what was appended to a file since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._rest = b""

    def read(self) -> str:
        """Return the new complete lines."""
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._position)
                new = stream.read()
        except FileNotFoundError:
            return ""
        self._position += len(new)
        complete, newline, self._rest = (self._rest + new).rpartition(b"\n")
        return (complete + newline).decode("utf-8", errors="replace")


def error_text(output: str) -> str:
    """Return the errors in Pulumi's text output, each once; the last lines when it names none."""
    blocks: list[str] = []
    for line in output.splitlines():
        if line.startswith(("error: ", "fatal: ")):
            blocks.append(line.partition(": ")[2])
        elif blocks and line.strip() and not line.startswith(("warning: ", "Diagnostics:", "Resources:")):
            blocks[-1] += "\n" + line
        elif not line.strip() and blocks and blocks[-1]:
            blocks.append("")
    found = [text for text in dict.fromkeys(clean(block) for block in blocks) if not is_noise(text)]
    return "\n".join(found) or "\n".join(output.strip().splitlines()[-8:]) or "it said nothing"


def require_success(outcome: Outcome, what: str, stack: str) -> None:
    """Raise the error that explains ``outcome`` unless it is a success."""
    if outcome.code == 0 and not outcome.stopped:
        return
    details = outcome.progress.errors
    text = outcome.log.read_text(encoding="utf-8", errors="replace") if outcome.log.exists() else ""
    if outcome.stopped:
        kind = CancelledError if outcome.stopped.startswith("SIG") else KitError
        raise kind(f"{what} was stopped: {outcome.stopped}", "the same command continues from here")
    if not details:
        hint = advice.explain(text, stack) or f"Pulumi's output: {outcome.log}"
        raise KitError(f"{what} failed: {error_text(text)}", hint)
    blocks = [f"{label}: {message}" if label else message for label, message in details]
    lines = "\n".join("  " + line for block in blocks for line in block.splitlines())
    hint = (
        advice.explain(lines, stack)
        or f"fix the cause, then run the same command again. Pulumi's output: {outcome.log}"
    )
    raise KitError(f"{what} failed\n{lines}", hint)
