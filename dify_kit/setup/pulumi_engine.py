"""The Pulumi engine: the operator's own, else the official one where it can be had, else one built here.

Which engine is used follows from what lies on the machine, nothing is remembered: the operator's own on PATH
when it is complete and new enough, then the official one in the kit's cache, then the built one there.
"""

import os
import shutil
import subprocess
import tempfile
import threading
import urllib.request
from functools import lru_cache
from pathlib import Path

from dify_kit.errors import KitError
from dify_kit.setup.commands import cache_directory, done, run_step
from dify_kit.setup.engine_build import VERSION, build_engine, built_engine, is_complete
from dify_kit.setup.plugins import offer, plugin
from dify_kit.talk import say
from dify_kit.workspace.files import CHECKOUT

DOCKER_PLUGIN = "5.2.0"
INSTALLER = "https://get.pulumi.com/install.sh"
PROBE_SECONDS = 5
INSTALL_SECONDS = 600


def official_engine() -> Path | None:
    """Return the directory of an official engine that can do the work, None when there is none."""
    own = _official_home() / "bin"
    for directory in (_on_path(), own):
        if directory and (directory / "pulumi-language-python").is_file() and docker_plugin().is_file():
            return directory
    return None


def _official_home() -> Path:
    return cache_directory() / "official" / VERSION


def _on_path() -> Path | None:
    """Return the operator's own engine when it is as new as the one that the kit was tried with."""
    found = shutil.which("pulumi")
    if found is None:
        return None
    program = Path(found).resolve()
    # A shell prepared by `dify-kit env` has the kit's own on PATH.
    if program.is_relative_to(cache_directory().resolve()):
        return None
    return program.parent if usable(pulumi_version(str(program), program.stat().st_mtime_ns)) else None


def usable(version: tuple[int, ...]) -> bool:
    """Tell whether an engine of this version understands what the kit and its Pulumi SDK say to it."""
    wanted = parse_version(VERSION)
    return version[:1] == wanted[:1] and version >= wanted


def parse_version(text: str) -> tuple[int, ...]:
    """Return ``v3.259.0``, also with a suffix, as ``(3, 259, 0)``; empty for anything else."""
    numbers = text.strip().removeprefix("v").partition("-")[0].partition("+")[0]
    try:
        return tuple(int(part) for part in numbers.split("."))
    except ValueError:
        return ()


@lru_cache
def pulumi_version(program: str, _changed: int) -> tuple[int, ...]:
    """Return the version of a Pulumi program; ``_changed`` (its mtime) makes an upgrade seen."""
    try:
        output = subprocess.run(
            [program, "version"],
            check=False,
            capture_output=True,
            text=True,
            timeout=20,
            env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "1"},
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse_version(output)


def docker_plugin() -> Path:
    """Return where Pulumi keeps the Docker provider that it downloaded."""
    return plugin("docker", DOCKER_PLUGIN)


def engine_env() -> dict[str, str]:
    """Return the variables under which `pulumi` finds its engine, its plugins and this project's packages."""
    official = official_engine()
    directory = official or built_engine()
    venv = CHECKOUT / ".venv"
    path = os.pathsep.join([str(directory), str(venv / "bin"), os.environ.get("PATH", os.defpath)])
    own = {"PATH": path, "VIRTUAL_ENV": str(venv), "PULUMI_SKIP_UPDATE_CHECK": "1"}
    if official is None:
        # The provider lies beside the engine; looking for it on the network costs seconds and fails.
        own["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "true"
    if docker_plugin().is_file():
        # A provider that is found on PATH gets a warning, several times each run.
        own["PULUMI_IGNORE_AMBIENT_PLUGINS"] = "true"
    return own


def _offer_provider(directory: Path) -> None:
    place = docker_plugin()
    if problem := offer(directory / place.name, place):
        # Pulumi finds it there too, with a warning.
        say(f"  the provider stays on PATH ({place}: {problem.strerror})")


def ensure_pulumi() -> None:
    """Make sure that an engine is there. Raises KitError with the reason and the next thing to try."""
    if official := official_engine():
        done("Pulumi engine", f"official, in {official}")
        return
    if is_complete(built_engine()):
        _offer_provider(built_engine())
        done("Pulumi engine", f"{VERSION}, built here earlier")
        return
    if reachable() and _install_official():
        done("Pulumi engine", f"{VERSION}, official, in {_official_home()}")
        return
    built = build_engine()
    _offer_provider(built)
    done("Pulumi engine", f"{VERSION}, built into {built}")


@lru_cache(maxsize=1)
def reachable() -> bool:
    """Tell whether Pulumi's installer can be reached; one request per run, with a timeout of 5 seconds."""
    say("→ asking whether Pulumi's installer can be reached ...")
    problem: list[str] = [f"no answer within {PROBE_SECONDS} s"]

    def look() -> None:
        try:
            with urllib.request.urlopen(INSTALLER, timeout=PROBE_SECONDS):
                problem[0] = ""
        except OSError as error:
            problem[0] = str(getattr(error, "reason", error))

    # In a thread: looking up a name that no server knows may take longer, and cannot be cut short.
    asking = threading.Thread(target=look, daemon=True)
    asking.start()
    asking.join(PROBE_SECONDS)
    reason = problem[0]
    if reason:
        say(f"  it cannot ({reason}): the engine is built from Go modules instead")
    return not reason


def _install_official() -> bool:
    """Install the official engine and its plugin; on failure say so, so that it is built instead."""
    home = _official_home()
    path = f"{home / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    try:
        with urllib.request.urlopen(INSTALLER, timeout=60) as answer:
            script: bytes = answer.read()
        with tempfile.TemporaryDirectory(prefix="dify-kit-") as scratch:
            installer = Path(scratch) / "install.sh"
            installer.write_bytes(script)
            run_step(
                f"installing Pulumi {VERSION}",
                ["sh", str(installer), "--version", VERSION, "--install-root", str(home), "--no-edit-path"],
                hint="",
                seconds=INSTALL_SECONDS,
            )
        run_step(
            f"installing Pulumi's Docker provider {DOCKER_PLUGIN}",
            [str(home / "bin" / "pulumi"), "plugin", "install", "resource", "docker", f"v{DOCKER_PLUGIN}"],
            hint="",
            seconds=INSTALL_SECONDS,
            env={**os.environ, "PATH": path, "PULUMI_SKIP_UPDATE_CHECK": "1"},
        )
    except (OSError, KitError) as problem:
        say(f"  the official engine could not be installed ({problem}): it is built instead")
        return False
    return official_engine() is not None
