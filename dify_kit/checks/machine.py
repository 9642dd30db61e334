"""Checks of this machine and its engines. Each is a function of facts, which tests replace."""

import datetime as dt
import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from docker.errors import DockerException, ImageNotFound
from packaging.requirements import InvalidRequirement, Requirement

from dify_kit.checks.result import GIB, Check, Status, first_line
from dify_kit.containers.docker_host import OTHER_ENGINE, SSH_HINT, chosen_engine
from dify_kit.errors import KitError
from dify_kit.setup.base_images import BASE
from dify_kit.setup.docker_engine import OLDEST as OLDEST_DOCKER
from dify_kit.setup.docker_engine import version_numbers
from dify_kit.setup.engine_build import PROGRAMS
from dify_kit.setup.pulumi_engine import docker_plugin
from dify_kit.workspace.files import CHECKOUT
from infra.engine import DEFAULT_ADDRESS, ssh_problem

MEMORY_STANDIN = 6 * GIB
MEMORY_DIFY = 8 * GIB
# The engine reports what the kernel left over: a machine sold as 8 GiB has about 7.7.
_MEMORY_TOLERANCE = 0.93
DISK_NEEDED = 2 * GIB
DISK_WANTED = 10 * GIB
CLOCK_TOLERANCE = 5.0
_EARLIEST = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_QUICK = 5
_SETUP = "run `make setup`"


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """The Docker engine's own information. Sizes in bytes; ``clock`` is None when it is not reported."""

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
    """Query the engine. Raises KitError with the reason when it does not answer."""
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
        raise KitError(f"no answer at {endpoint}: {first_line(problem)}", hint) from None
    return EngineFacts(
        address=endpoint.address,
        chosen_by=endpoint.chosen_by,
        version=str(info.get("ServerVersion") or ""),
        memory=int(info.get("MemTotal") or 0),
        root=Path(str(info.get("DockerRootDir") or "/var/lib/docker")),
        clock=moment(str(info.get("SystemTime") or "")),
        has_base_image=has_base_image,
    )


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
    """Check the engine's version."""
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
    """Check the ``free`` bytes at ``path``."""
    found = f"{free / GIB:.1f} GiB free at {path}"
    if free < DISK_NEEDED:
        hint = f"{DISK_NEEDED // GIB} GiB are needed: `docker system df` shows what can go"
        return Check(name=name, status=Status.FAILED, found=found, hint=hint)
    if free < DISK_WANTED:
        hint = f"a stack with its data wants {DISK_WANTED // GIB} GiB"
        return Check(name=name, status=Status.WARNING, found=found, hint=hint)
    return Check(name=name, status=Status.OK, found=found)


def disks(name: str, path: Path) -> list[Check]:
    """Check the disk at ``path``; nothing where this user may not look."""
    try:
        return [check_disk(name, path, shutil.disk_usage(path).free)]
    except OSError:
        return []  # Docker's directory is closed to ordinary users


def existing(path: Path) -> Path:
    """Return the path, or its nearest parent that exists."""
    return next(candidate for candidate in (path, *path.parents) if candidate.is_dir())


def check_clock(now: dt.datetime, engine: dt.datetime | None) -> Check:
    """Check this machine's clock, alone and against the engine's: tokens and TLS depend on both."""
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


def packages(checkout: Path = CHECKOUT) -> Check:
    """Compare the installed packages with the checkout's lock file."""
    lock = checkout / "requirements.lock"
    try:
        return check_packages(lock.read_text(encoding="utf-8"), installed_packages())
    except OSError as problem:
        return Check(
            name="Python packages",
            status=Status.FAILED,
            found=first_line(problem),
            hint="run `git status`: is the checkout complete?",
        )


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
    """Check every part of the Pulumi engine under ``environment``; ``ask`` runs `pulumi version`."""
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
            found=f"{program} does not run: {first_line(problem)}",
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
