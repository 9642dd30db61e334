"""Packs what a report about a stack needs into one archive, without a secret, and lists what is in it and what is not.

Each part is collected by itself: one that fails is left out, with the reason. Secrets are masked twice: by the names of
settings and variables, and then in the finished text of each file, wherever they are known.
"""

import io
import json
import os
import platform
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from dify_kit.checks import doctor, machine
from dify_kit.checks.machine import ask_engine
from dify_kit.containers.docker_host import Container, Engine, holds_secret
from dify_kit.engine.state import FileBackend
from dify_kit.errors import KitError
from dify_kit.setup.pulumi_engine import engine_env
from dify_kit.stack import settings
from dify_kit.watch import logs, screen, status
from dify_kit.watch.known_secrets import Known, known
from dify_kit.watch.report import plain
from dify_kit.workspace.files import PROJECT, StackFiles
from infra.catalogue.checks import names_secret
from infra.masking import MASK
from infra.settings.given import SECRET_KEYS

# A file of the bundle: its path, what it is, and its content.
Part = tuple[str, str, object]
MANIFEST = "MANIFEST.txt"
LOG_LINES = 500
# Of Pulumi's own output, the end.
OUTPUT_BYTES = 256 * 1024
UPDATES = 20
WIDTH = 160
PRIVATE_MODE = 0o600
# What no bundle has.
NEVER = (
    "secrets: settings, variables, keys, tokens and passwords read as [masked]",
    "the data of volumes: databases, files, plugins, certificates with their keys",
    "Pulumi's state, the passphrase, OAuth clients and issued keys",
)


@dataclass(kw_only=True)
class Bundle:
    """Files of the bundle by path, each with a line that says what it is, and what was left out with the reason."""

    stack: str
    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def manifest(self, now: datetime) -> str:
        """Return the list of what the bundle holds, and of what it does not."""
        width = max(map(len, self.files), default=0)
        held = [f"  {path:<{width}}  {what}" for path, (what, _) in sorted(self.files.items())]
        left = [f"  {line}" for line in (*NEVER, *self.left_out)]
        return "\n".join(
            [
                f"Support bundle of stack {self.stack}, dify-kit {version('dify-kit')}, {now:%Y-%m-%d %H:%M} UTC",
                "",
                "Holds:",
                *held,
                "",
                "Left out:",
                *left,
                "",
            ]
        )


def collect(files: StackFiles, connect: Callable[[], Engine]) -> Bundle:
    """Collect everything of a stack that is configured. Raises nothing for what cannot be had."""
    bundle = Bundle(stack=files.stack)
    containers: list[Container] = []
    engine: Engine | None = None
    try:
        engine = connect()
        containers = engine.workloads(files.stack)
    except KitError as problem:
        bundle.left_out.append(f"logs and containers: {problem.message}")
    masked = known(files, containers)
    bundle.left_out += [f"the values that mask {line}" for line in masked.missing]
    parts: list[tuple[str, Callable[[], Iterable[Part]]]] = [
        ("status", lambda: _status(files, connect)),
        ("doctor.json", lambda: _doctor(files)),
        ("versions.json", _versions),
        ("settings.json", lambda: _settings(files)),
        ("exports.json", lambda: _exports(files)),
        ("rendered files", lambda: _rendered(files)),
        ("logs", lambda: _logs(engine, files.stack, containers)),
        ("containers", lambda: _shown(engine, files.stack, strict=bool(masked.missing))),
        ("Pulumi's output", lambda: _pulumi(files)),
    ]
    for name, part in parts:
        try:
            for path, what, text in part():
                _add(bundle, masked, path, what, text)
        # A part of a damaged installation may fail in any way, and the rest is needed the more.
        except Exception as problem:  # noqa: BLE001
            reason = (
                problem.message if isinstance(problem, KitError) else f"{type(problem).__name__}: {problem}"
            )
            bundle.left_out.append(masked.redact(f"{name}: {reason}"))
    return bundle


def _add(bundle: Bundle, masked: Known, path: str, what: str, content: object) -> None:
    """Add a file: text as it is, anything else as JSON. Texts in it are masked before JSON escapes them once more."""
    text = content if isinstance(content, str) else json.dumps(_masked(content, masked), indent=2) + "\n"
    clean = masked.redact(text)
    if masked.redact.finds(clean):
        bundle.left_out.append(f"{path}: a secret remains in it")
        return
    bundle.files[path] = (what, clean)


def write(bundle: Bundle, target: Path, now: datetime) -> str:
    """Write the archive, for this user alone, and return its manifest. Raises KitError."""
    manifest = bundle.manifest(now)
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
    except FileExistsError:
        raise KitError(f"{target} exists already", "name another file, or move it away") from None
    except OSError as problem:
        raise KitError(
            f"{target} cannot be written: {problem.strerror}", "name another file with --to"
        ) from None
    folder = target.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
    try:
        with os.fdopen(descriptor, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz") as tar:
            for path, text in [
                (MANIFEST, manifest),
                *((path, one[1]) for path, one in sorted(bundle.files.items())),
            ]:
                content = text.encode()
                entry = tarfile.TarInfo(f"{folder}/{path}")
                entry.size, entry.mode, entry.mtime = len(content), PRIVATE_MODE, int(now.timestamp())
                tar.addfile(entry, io.BytesIO(content))
    except BaseException:
        with suppress(OSError):
            target.unlink()
        raise
    return manifest


def _masked(value: object, masked: Known) -> object:
    if isinstance(value, Mapping):
        return {str(key): _masked(one, masked) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(one, masked) for one in value]
    return value if value is None or isinstance(value, bool | int | float) else masked.redact(str(value))


def _status(files: StackFiles, connect: Callable[[], Engine]) -> Iterator[Part]:
    found = status.gather(files, connect=connect)
    yield "status.json", "the status as JSON", found.document()
    shown = io.StringIO()
    screen.show(found, console=Console(file=shown, width=WIDTH, highlight=False, color_system=None))
    yield "status.txt", "the status as a terminal shows it", shown.getvalue()


def _doctor(files: StackFiles) -> Iterator[Part]:
    checks = doctor.run_checks(files.stack)
    yield "doctor.json", "the checks of the machine and the settings", [asdict(check) for check in checks]


def _versions() -> Iterator[Part]:
    found: dict[str, Any] = {
        "dify-kit": version("dify-kit"),
        "python": platform.python_version(),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {name: version(name) for name in ("pulumi", "pulumi-docker", "docker")},
    }
    with suppress(OSError):
        found["system"] = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    found["pulumi"] = machine.check_pulumi(dict(os.environ) | engine_env(), machine.ask_version).found
    try:
        facts = ask_engine()
        found["docker"] = facts.version
    except KitError as problem:
        found["docker"] = problem.message
    yield "versions.json", "versions of the kit, Pulumi, Docker, Python and the kernel", found


def _settings(files: StackFiles) -> Iterator[Part]:
    stored = {
        key.removeprefix(f"{PROJECT}:"): value
        for key, value in files.config().items()
        if key.startswith(f"{PROJECT}:")
    }
    reading = settings.read(files)
    found = {
        "file": str(files.config_file),
        "release": reading.settings.release,
        "settings": {
            key: MASK if key in SECRET_KEYS else without_secrets(value) for key, value in stored.items()
        },
        "problems": list(reading.problems),
        "warnings": list(reading.warnings),
    }
    yield "settings.json", "the settings that differ from their defaults, secrets masked", found


def without_secrets(value: Any) -> Any:  # noqa: ANN401  # any value of JSON
    """Return a value of a setting with its encrypted parts masked, and those under the name of a secret."""
    if isinstance(value, Mapping):
        if settings.is_secure(value):
            return MASK
        return {
            key: MASK if names_secret(str(key)) and isinstance(one, str) else without_secrets(one)
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [without_secrets(one) for one in value]
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        # An object that was stored as text.
        try:
            return without_secrets(json.loads(value))
        except ValueError:
            return value
    return value


def _exports(files: StackFiles) -> Iterator[Part]:
    backend = FileBackend.of(files)
    if backend is None:
        raise KitError("the state is in a backend elsewhere")
    yield "exports.json", "the stack's exports that are no secrets", dict(backend.read().outputs)


def _rendered(files: StackFiles) -> Iterator[Part]:
    from dify_kit.stack import rendering  # noqa: PLC0415  # imports Pulumi

    try:
        found = settings.decrypted(files)
    except KitError:
        # Without the passphrase: what follows from secrets is missing, such as a self-signed certificate.
        found = settings.checked(files)
    for one in rendering.rendered_files(found):
        for path, text in one.files.items():
            yield f"rendered/{one.service}{path}", f"rendered for {one.service}", text


def _logs(engine: Engine | None, stack: str, containers: list[Container]) -> Iterator[Part]:
    services = sorted({one.service for one in containers})
    lines = logs.past(containers, lines=LOG_LINES)
    if engine:
        lines = sorted([*lines, *logs.noticed(engine.notices(stack), services)], key=lambda line: line.time)
    for service in services:
        pods = {line.pod for line in lines if line.service == service} - {""}
        own = [
            f"{line.time} {f'{line.pod} ' if len(pods) > 1 else ''}{'[event] ' if line.event else ''}{line.text}\n"
            for line in lines
            if line.service == service
        ]
        yield f"logs/{service}.log", f"the last {len(own)} lines of {service}", "".join(own)


def _shown(engine: Engine | None, stack: str, *, strict: bool) -> Iterator[Part]:
    for one in engine.shown(stack) if engine else ():
        yield one.path, one.what, without_environment(one.content, strict=strict)


def without_environment(value: Any, *, strict: bool) -> Any:  # noqa: ANN401  # any value of JSON
    """Return what a platform shows of its objects, environments without secrets; `strict`: without any value.

    An environment is `Env` of an inspected container (`NAME=value`), or `env` of one of a pod (`name`, `value`).
    """
    if isinstance(value, Mapping):
        return {
            key: _environment(one, strict=strict)
            if key in {"Env", "env"} and isinstance(one, list)
            else without_environment(one, strict=strict)
            for key, one in value.items()
        }
    return [without_environment(one, strict=strict) for one in value] if isinstance(value, list) else value


def _environment(entries: list[Any], *, strict: bool) -> list[Any]:
    found: list[Any] = []
    for entry in entries:
        if isinstance(entry, Mapping):
            hidden = entry.get("value") and (strict or holds_secret(str(entry.get("name"))))
            found.append({**entry, "value": MASK} if hidden else entry)
            continue
        name, _, value = str(entry).partition("=")
        found.append(f"{name}={MASK if value and (strict or holds_secret(name)) else value}")
    return sorted(found, key=str)


def _pulumi(files: StackFiles) -> Iterator[Part]:
    backend = FileBackend.of(files)
    if backend:
        updates = [plain(asdict(one)) for one in backend.last_updates(UPDATES)]
        yield "pulumi/history.json", "the last changes of the stack, without settings", updates
    for path in sorted(files.data.logs.glob(f"{files.stack}-*.log")):
        # The log of stack `dev-2` begins like one of `dev`.
        if path.stem.removeprefix(f"{files.stack}-").isalpha():
            text = path.read_bytes()[-OUTPUT_BYTES:].decode(errors="replace")
            yield f"pulumi/{path.name}", f"the end of Pulumi's last output of this kind: {path.stem}", text
