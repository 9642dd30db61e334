"""Look at this machine and at a stack's settings, and say what would get in the way. Changes nothing.

Each check is a function of facts, so that it can be tried with facts that no developer's machine has;
``run_checks`` gathers the facts. A failed check means that `make up` would fail or that data is at risk.
"""

import datetime as dt
import importlib.metadata
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import requests
from docker.errors import DockerException, ImageNotFound
from packaging.requirements import InvalidRequirement, Requirement
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dify_kit.checks import preflight, published
from dify_kit.containers.docker_host import OTHER_ENGINE, SSH_HINT, DockerEngine, chosen_engine
from dify_kit.errors import KitError
from dify_kit.setup.base_images import BASE
from dify_kit.setup.docker_engine import OLDEST as OLDEST_DOCKER
from dify_kit.setup.docker_engine import version_numbers
from dify_kit.setup.engine_build import PROGRAMS
from dify_kit.setup.pulumi_engine import docker_plugin, engine_env
from dify_kit.stack.create import default, loaded_names
from dify_kit.workspace.files import CHECKOUT, PROJECT, DataDir, StackFiles, check_stack_name
from infra.catalogue.releases import Release, catalogue
from infra.engine import DEFAULT_ADDRESS, ssh_problem

GIB = 1024**3
MEMORY_STANDIN = 6 * GIB
MEMORY_DIFY = 8 * GIB
# The engine reports what the kernel left over: a machine sold as 8 GiB has about 7.7.
_MEMORY_TOLERANCE = 0.93
DISK_NEEDED = 2 * GIB
DISK_WANTED = 10 * GIB
CLOCK_TOLERANCE = 5.0
_EARLIEST = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_QUICK = 5
_UNFOLDED = 400
_SETUP = "run `make setup`"


class Status(StrEnum):
    """How a check ended. Only ``FAILED`` makes the exit code 1."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One answer: what was looked at, how it is, and what to do about it."""

    name: str
    status: Status
    found: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """What the Docker engine says about itself. Sizes in bytes; ``clock`` is None when it does not tell."""

    address: str
    chosen_by: str
    version: str
    memory: int
    root: Path
    clock: dt.datetime | None
    has_base_image: bool

    @property
    def local(self) -> bool:
        """Whether the engine's disk and ports are this machine's."""
        return self.address.startswith("unix:")


def ask_engine() -> EngineFacts:
    """Ask the engine. Raises KitError with the reason when it does not answer."""
    endpoint = chosen_engine()
    try:
        client = endpoint.client(_QUICK)
        info: dict[str, Any] = client.info()
        try:
            client.images.get(BASE)
            has_base_image = True
        except ImageNotFound:
            has_base_image = False
    except (DockerException, requests.RequestException, OSError) as problem:
        hint = f"{_SETUP}, which installs and starts it"
        if "Permission denied" in str(problem):
            hint = "join the group of the socket (`sudo usermod -aG docker $USER`), then log in again"
        elif missing := ssh_problem(endpoint):
            raise KitError(f"no answer at {endpoint}: {missing}", SSH_HINT) from None
        elif endpoint.address != DEFAULT_ADDRESS:
            hint = "start it, or choose another: " + OTHER_ENGINE
        raise KitError(f"no answer at {endpoint}: {_first_line(problem)}", hint) from None
    return EngineFacts(
        address=endpoint.address,
        chosen_by=endpoint.chosen_by,
        version=str(info.get("ServerVersion") or ""),
        memory=int(info.get("MemTotal") or 0),
        root=Path(str(info.get("DockerRootDir") or "/var/lib/docker")),
        clock=moment(str(info.get("SystemTime") or "")),
        has_base_image=has_base_image,
    )


def _first_line(problem: object) -> str:
    return (str(problem).strip().splitlines() or ["it said nothing"])[0][:200]


def moment(text: str) -> dt.datetime | None:
    """Return the moment that Docker writes as RFC 3339, to the microsecond; None for anything else."""
    # Nanoseconds: more digits than datetime reads.
    head, dot, tail = text.partition(".")
    zone = tail.lstrip("0123456789")
    try:
        found = dt.datetime.fromisoformat(head + dot + tail[: len(tail) - len(zone)][:6] + zone)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def check_docker(facts: EngineFacts) -> Check:
    """Judge the engine's version."""
    found = f"{facts.version} at {facts.address} ({facts.chosen_by})"
    if version_numbers(facts.version) < OLDEST_DOCKER:
        oldest = ".".join(map(str, OLDEST_DOCKER))
        return Check(
            name="Docker engine",
            status=Status.FAILED,
            found=found,
            hint=f"the kit needs {oldest} or newer: upgrade the engine",
        )
    return Check(name="Docker engine", status=Status.OK, found=found)


def check_memory(facts: EngineFacts, images: str | None) -> Check:
    """Compare the engine's memory with what a stack wants; ``images`` is the stack's source of images."""
    wanted = MEMORY_STANDIN if images == "local" else MEMORY_DIFY
    found = f"{facts.memory / GIB:.1f} GiB"
    if facts.memory < wanted * _MEMORY_TOLERANCE:
        what = "the stand-in" if images == "local" else "Dify's own images"
        return Check(
            name="memory",
            status=Status.WARNING,
            found=found,
            hint=f"{what} want {wanted // GIB} GiB: services may be killed for lack of memory",
        )
    return Check(name="memory", status=Status.OK, found=found)


def check_disk(name: str, path: Path, free: int) -> Check:
    """Judge the ``free`` bytes at ``path``."""
    found = f"{free / GIB:.1f} GiB free at {path}"
    if free < DISK_NEEDED:
        hint = f"{DISK_NEEDED // GIB} GiB are needed: `docker system df` shows what can go"
        return Check(name=name, status=Status.FAILED, found=found, hint=hint)
    if free < DISK_WANTED:
        hint = f"a stack with its data wants {DISK_WANTED // GIB} GiB"
        return Check(name=name, status=Status.WARNING, found=found, hint=hint)
    return Check(name=name, status=Status.OK, found=found)


def check_clock(now: dt.datetime, engine: dt.datetime | None) -> Check:
    """Judge this machine's clock, by itself and against the engine's: tokens and TLS depend on both."""
    found = now.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if now < _EARLIEST:
        return Check(
            name="clock",
            status=Status.FAILED,
            found=found,
            hint="it is in the past, and TLS and tokens fail: set the clock (NTP)",
        )
    skew = abs((now - engine).total_seconds()) if engine else 0.0
    if skew > CLOCK_TOLERANCE:
        return Check(
            name="clock",
            status=Status.WARNING,
            found=f"{found}, {skew:.0f} s away from the engine's",
            hint="set both by NTP: tokens of one are not valid for the other",
        )
    return Check(name="clock", status=Status.OK, found=found)


def check_packages(lock: str, installed: Mapping[str, str]) -> Check:
    """Compare ``lock`` (the text of requirements.lock) with installed versions by canonical name."""
    wanted: dict[str, str] = {}
    for line in lock.splitlines():
        text = line.rstrip("\\ ")
        if not text or text[0] in " #-":
            continue
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate():
            wanted[_canonical(requirement.name)] = str(requirement.specifier).removeprefix("==")
    wrong = sorted(
        f"{name} {installed.get(name, 'missing')} (locked: {version})"
        for name, version in wanted.items()
        if installed.get(name) != version
    )
    if wrong or not wanted:
        found = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")  # noqa: PLR2004
        return Check(
            name="Python packages",
            status=Status.FAILED,
            found=found or "requirements.lock lists none",
            hint="run `python3 tools/bootstrap`",
        )
    return Check(name="Python packages", status=Status.OK, found=f"{len(wanted)} as locked")


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def installed_packages() -> dict[str, str]:
    """Return the installed distributions of this environment by canonical name."""
    return {
        _canonical(str(distribution.metadata["Name"])): distribution.version
        for distribution in importlib.metadata.distributions()
    }


def check_pulumi(environment: Mapping[str, str], ask: Callable[[str, Mapping[str, str]], str]) -> Check:
    """Look for every part of the Pulumi engine under ``environment``; ``ask`` runs `pulumi version`."""
    path = environment.get("PATH", os.defpath)
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if "pulumi-resource-docker" in missing and docker_plugin().is_file():
        missing.remove("pulumi-resource-docker")
    if missing:
        return Check(
            name="Pulumi engine",
            status=Status.FAILED,
            found=f"missing: {', '.join(missing)}",
            hint=f"{_SETUP}, which installs or builds it",
        )
    program = str(shutil.which("pulumi", path=path))
    try:
        version = ask(program, environment)
    except (OSError, subprocess.SubprocessError) as problem:
        return Check(
            name="Pulumi engine",
            status=Status.FAILED,
            found=f"{program} does not run: {_first_line(problem)}",
            hint=f"remove it, then {_SETUP}",
        )
    return Check(
        name="Pulumi engine",
        status=Status.OK,
        found=f"{version or 'unnamed version'} in {Path(program).parent}",
    )


def ask_version(program: str, environment: Mapping[str, str]) -> str:
    """Return what ``pulumi version`` prints, without network look-ups."""
    done = subprocess.run(
        [program, "version"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
        env={**environment, "PULUMI_SKIP_UPDATE_CHECK": "1"},
    )
    return done.stdout.strip().removeprefix("v")


def check_base_image(facts: EngineFacts, images: str | None) -> Check:
    """Look for the image that everything built here starts from; only ``local`` stacks depend on it."""
    if facts.has_base_image:
        return Check(name="base image", status=Status.OK, found=f"{BASE} is there")
    if images in {"registry", "mirror", "preloaded"}:
        return Check(name="base image", status=Status.OK, found=f"not needed (images: {images})")
    return Check(
        name="base image",
        status=Status.FAILED if images == "local" else Status.WARNING,
        found=f"{BASE} is not there",
        hint=f"{_SETUP}, which pulls it or makes it from Debian packages",
    )


def check_settings(files: StackFiles, environ: Mapping[str, str]) -> Check:
    """Read the stack's settings, and see that their secrets can be decrypted and are closed to others."""
    name = f"stack {files.stack}"
    try:
        config = files.config()
    except (KitError, OSError, UnicodeDecodeError) as problem:
        hint = problem.hint if isinstance(problem, KitError) else "check owner and mode of the file"
        return Check(name=name, status=Status.FAILED, found=_first_line(problem), hint=hint)
    ours = [key for key in config if key.startswith(f"{PROJECT}:")]
    if not ours:
        return Check(name=name, status=Status.OK, found="not created yet; `make up` creates it")
    secret = any(isinstance(value, dict) and "secure" in value for value in config.values())
    passphrase = files.data.passphrase
    elsewhere = bool({"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & environ.keys())
    if secret and not elsewhere and not passphrase.is_file():
        return Check(
            name=name,
            status=Status.FAILED,
            found=f"its secrets are encrypted, and {passphrase} is missing",
            hint="restore that file from your backup, or set PULUMI_CONFIG_PASSPHRASE_FILE",
        )
    open_files = [path for path in (passphrase, files.stored) if _open_to_others(path)]
    if open_files:
        return Check(
            name=name,
            status=Status.WARNING,
            found=f"other users can read {open_files[0]}",
            hint=f"chmod 600 {' '.join(str(path) for path in open_files)}",
        )
    return Check(name=name, status=Status.OK, found=f"{len(ours)} settings in {files.config_file}")


def _open_to_others(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except OSError:
        return False


def check_loaded(files: StackFiles, have: Callable[[list[str]], list[str]]) -> list[Check]:
    """See whether the images of a preloaded stack are in the engine; nothing for others.

    ``have`` returns those of the names that the engine has. Images of optional parts are `make preview`'s to find.
    """
    config = files.config() if images_of(files) == "preloaded" else {}
    if not config:
        return []
    store = str(config.get(f"{PROJECT}:vectorStore") or default("vectorStore"))
    try:
        names = loaded_names(_release_of(config)[0], store)
        missing = sorted(set(names) - set(have(names)))
    except (KeyError, ValueError):
        return []  # a release that the program will refuse, with the reason
    except KitError as problem:
        return [Check(name="images", status=Status.FAILED, found=problem.message, hint=problem.hint)]
    if missing:
        return [
            Check(
                name="images",
                status=Status.FAILED,
                found=f"{len(missing)} of {len(names)} are not in the engine: {', '.join(missing)}",
                hint="`dify-kit images load` an archive of `dify-kit images save`; `make preview` says how",
            )
        ]
    return [Check(name="images", status=Status.OK, found=f"{len(names)} images are loaded")]


def check_port(files: StackFiles) -> Check:
    """See whether the stack's port is free or its own."""
    wanted = preflight.published(files)
    if wanted is None:
        return Check(
            name="port",
            status=Status.FAILED,
            found=f"{PROJECT}:httpPort is not a port number",
            hint=f"pulumi config set httpPort <port> --stack {files.stack}",
        )
    try:
        preflight.check_port(files, DockerEngine())
    except KitError as problem:
        return Check(name="port", status=Status.FAILED, found=problem.message, hint=problem.hint)
    address, port = wanted
    return Check(name="port", status=Status.OK, found=f"{address}:{port} is free, or this stack's own")


def check_published(files: StackFiles, *, repair: bool = False) -> list[Check]:
    """Ask the published address of a running stack as a client does; nothing where none runs.

    ``repair`` restarts the edge when it believes itself well and does not answer there.
    """
    name = "published address"
    try:
        engine = DockerEngine()
        where = published.find(files, engine)
        if where is None or published.edge_of(files.stack, engine) is None:
            return []
        if repair:
            published.ensure(files, engine)
        found = published.problem(where)
    except (KitError, OSError, UnicodeDecodeError) as problem:
        hint = problem.hint if isinstance(problem, KitError) else ""
        return [Check(name=name, status=Status.FAILED, found=_first_line(problem), hint=hint)]
    if found:
        hint = f"`dify-kit doctor --repair --stack {files.stack}` restarts the edge, which publishes the port again"
        told = f"{where} does not answer, although the edge is well inside: {found}"
        return [Check(name=name, status=Status.FAILED, found=told, hint=hint)]
    return [Check(name=name, status=Status.OK, found=f"the edge answers at {where}")]


def check_release(files: StackFiles) -> list[Check]:
    """Warn about the known vulnerabilities of the stack's release; nothing for one that the program refuses."""
    from infra.guards.advisories import warnings  # noqa: PLC0415  # imported late: it imports Pulumi

    try:
        found, newest = _release_of(files.config())
    except (KitError, OSError, UnicodeDecodeError, ValueError, KeyError):
        return []
    name, version = "Dify release", found.version
    if not found.advisories:
        return [Check(name=name, status=Status.OK, found=f"{version}, without known advisories")]
    return [
        Check(
            name=name,
            status=Status.WARNING,
            found=line,
            hint=f"back up, then set dify:release, up to {newest}",
        )
        for line in warnings(found)
    ]


def _release_of(config: Mapping[str, Any]) -> tuple[Release, str]:
    """Return a stack's release and the newest version that it may name.

    Raises KeyError for one that is in no catalogue, CatalogueError for a file that is wrong.
    """
    own = config.get(f"{PROJECT}:catalogue")
    known = catalogue(Path(str(own)).expanduser() if own else None)
    return known[str(config.get(f"{PROJECT}:release") or default("release"))], next(iter(known))


def check_gate(files: StackFiles) -> list[Check]:
    """See whether the provider of the gate answers as the gateway needs it; nothing where there is no gate.

    A warning at most: the stack's containers may reach what this machine does not, and the other way round.
    """
    # Imported late: it needs the gateway's libraries, which no other check does.
    from dify_gateway.gate_config import GateSettings  # noqa: PLC0415
    from dify_gateway.gate_provider import Provider  # noqa: PLC0415
    from dify_gateway.issuers import IssuerError  # noqa: PLC0415

    try:
        told = files.config().get(f"{PROJECT}:oidcGate")
    except (KitError, OSError, UnicodeDecodeError):
        return []
    if not isinstance(told, dict) or str(told.get("enabled")).lower() != "true":
        return []
    hint = "`make up` goes on, and nobody gets in; see docs/guides/console-gate.md"
    ca_file = Path(str(told.get("caFile") or "")).expanduser()
    settings = GateSettings(
        issuer=str(told.get("issuer", "")),
        ca_file=ca_file.name,
        # What is not told to anybody here.
        origins=("https://dify.example.com",),
        client_id="",
        client_secret="",
        scopes=(),
        email_domains=(),
        groups_claim=(),
        allowed_groups=(),
        session_seconds=0,
        skew_seconds=0,
    )
    try:
        metadata = Provider(settings, ca_file.parent).read()
    except IssuerError as problem:
        return [Check(name="gate", status=Status.WARNING, found=_first_line(problem), hint=hint)]
    return [Check(name="gate", status=Status.OK, found=f"people sign in at {metadata.authorization}")]


def images_of(files: StackFiles) -> str | None:
    """Return the stack's source of images; None when it is unknown."""
    try:
        found = files.config().get(f"{PROJECT}:images")
    except (KitError, OSError, UnicodeDecodeError):
        return None
    return str(found) if found else None


def run_checks(
    stack: str,
    *,
    environ: Mapping[str, str] | None = None,
    engine: Callable[[], EngineFacts] = ask_engine,
    environment: Callable[[], Mapping[str, str]] | None = None,
    repair: bool = False,
) -> list[Check]:
    """Make every check for ``stack``. Raises UsageError for an impossible stack name, nothing else.

    ``engine`` asks the Docker engine; ``environment`` gives the variables that Pulumi would run under.
    """
    environ = os.environ if environ is None else environ
    # Not StackFiles.open: that prepares directories and links, and here nothing may change.
    files = StackFiles(stack=check_stack_name(stack), data=DataDir.locate(environ), checkout=CHECKOUT)
    images = images_of(files)
    checks = [_packages(), check_pulumi((environment or _pulumi_environment)(), ask_version)]
    now = dt.datetime.now(tz=dt.UTC)
    try:
        facts = engine()
    except KitError as problem:
        checks.append(
            Check(name="Docker engine", status=Status.FAILED, found=problem.message, hint=problem.hint)
        )
        checks.append(check_clock(now, None))
    else:
        checks += [check_docker(facts), check_memory(facts, images), check_base_image(facts, images)]
        checks.append(check_clock(now, facts.clock))
        checks.append(check_port(files))
        checks += check_published(files, repair=repair)
        checks += check_loaded(files, lambda names: DockerEngine().images(names))
        if facts.local:
            checks += _disk("Docker's disk", facts.root)
    checks += _disk("your disk", _existing(files.data.root))
    checks.append(check_settings(files, environ))
    checks += check_release(files)
    checks += check_gate(files)
    return checks


def _packages() -> Check:
    lock = CHECKOUT / "requirements.lock"
    try:
        return check_packages(lock.read_text(encoding="utf-8"), installed_packages())
    except OSError as problem:
        return Check(
            name="Python packages",
            status=Status.FAILED,
            found=_first_line(problem),
            hint="run `git status`: is the checkout complete?",
        )


def _pulumi_environment() -> Mapping[str, str]:
    return dict(os.environ) | engine_env()


def _disk(name: str, path: Path) -> list[Check]:
    try:
        return [check_disk(name, path, shutil.disk_usage(path).free)]
    except OSError:
        return []  # Docker's directory is closed to ordinary users


def _existing(path: Path) -> Path:
    return next(candidate for candidate in (path, *path.parents) if candidate.is_dir())


_SIGNS = {Status.OK: ("✓", "green"), Status.WARNING: ("!", "yellow"), Status.FAILED: ("✗", "bold red")}


def show(checks: list[Check]) -> None:
    """Print the checks as a table on stdout."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for check in checks:
        sign, style = _SIGNS[check.status]
        table.add_row(f"[{style}]{sign}[/]", check.name, _escaped(check))
    console = Console(highlight=False)
    if not console.is_terminal:
        # Lines of a file or a pipe are not folded: a path in two halves helps nobody.
        console = Console(highlight=False, width=_UNFOLDED)
    console.print(table)


def _escaped(check: Check) -> str:

    return escape(check.found) + (f"\n[cyan]hint: {escape(check.hint)}[/]" if check.hint else "")


def doctor(stack: str = "dev", *, json_output: bool = False, repair: bool = False) -> int:
    """Make every check, print the answers on stdout (a table, or JSON), and return the exit code.

    JSON is ``{"ok": bool, "stack": str, "checks": [{"name", "status", "found", "hint"}]}``.
    """
    checks = run_checks(stack, repair=repair)
    healthy = all(check.status is not Status.FAILED for check in checks)
    if json_output:
        document = {"ok": healthy, "stack": stack, "checks": [asdict(check) for check in checks]}
        print(json.dumps(document, indent=2))  # noqa: T201  # data, on stdout
    else:
        show(checks)
    return 0 if healthy else 1
