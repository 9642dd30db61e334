"""The Docker engine: used where one answers, installed and started where none does (Debian, Ubuntu)."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import docker
import requests

from dify_kit.errors import KitError
from dify_kit.setup.commands import as_root, done, run_step

START_SECONDS = 60
INSTALL_SECONDS = 900
LOG = Path("/var/log/dify-kit-dockerd.log")
OWN_ENGINE = "install a Docker engine (version 20.10 or newer), or point DOCKER_HOST at one, then try again"


def version() -> str | None:
    """Return the version of the engine that answers, None when none does."""
    try:
        answer: dict[str, str] = docker.from_env(timeout=5).version()
    except (docker.errors.DockerException, requests.RequestException, OSError):
        return None
    return answer["Version"]


def ensure_docker() -> None:
    """Make sure that an engine answers. Raises KitError with the reason and the next thing to try."""
    if found := version():
        done("Docker engine", f"{found} answers")
        return
    if os.environ.get("DOCKER_HOST"):
        raise KitError(
            f"the Docker engine at DOCKER_HOST={os.environ['DOCKER_HOST']} does not answer",
            "start it, or unset DOCKER_HOST to use an engine on this machine",
        )
    if shutil.which("dockerd") is None:
        _install()
    if version() is None:
        _start()
    done("Docker engine", f"{version()} answers")


def _install() -> None:
    if shutil.which("apt-get") is None:
        raise KitError("no Docker engine, and this is neither Debian nor Ubuntu", OWN_ENGINE)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    hint = "are Debian's package sources reachable? " + OWN_ENGINE
    run_step(
        "reading the package lists",
        as_root(["apt-get", "update", "-qq"]),
        hint=hint,
        seconds=INSTALL_SECONDS,
        env=env,
    )
    run_step(
        "installing the Docker engine",
        as_root(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "docker.io", "iptables"]),
        hint=hint,
        seconds=INSTALL_SECONDS,
        env=env,
    )


    if shutil.which("docker") is None:
        # Debian 13 keeps the client in a package of its own.
        run_step(
            "installing the Docker client",
            as_root(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "docker-cli"]),
            hint=hint,
            seconds=INSTALL_SECONDS,
            env=env,
        )


def _start() -> None:
    if Path("/run/systemd/system").is_dir():
        run_step(
            "starting the Docker engine",
            as_root(["systemctl", "enable", "--now", "docker"]),
            hint="`systemctl status docker` says more",
            seconds=START_SECONDS,
        )
        command = ["systemctl", "start", "docker"]
    else:
        command = ["dockerd"]
        # Without systemd nobody else starts it: detached, so that it outlives this command.
        if not _may_lower_oom_score():
            command.append("--oom-score-adjust=0")
        script = f"setsid {' '.join(command)} >{LOG} 2>&1 </dev/null &"
        subprocess.run(as_root(["sh", "-c", script]), check=True, timeout=START_SECONDS)
    deadline = time.monotonic() + START_SECONDS
    while version() is None:
        if time.monotonic() > deadline:
            raise KitError(
                f"the Docker engine did not answer within {START_SECONDS} s of `{' '.join(command)}`\n{_last_log()}",
                f"its log is in {LOG}; may this user read /var/run/docker.sock (group docker)?",
            )
        time.sleep(0.3)


def _may_lower_oom_score() -> bool:
    """Tell whether this process may protect dockerd from the out-of-memory killer; containers mostly may not."""
    cap_sys_resource = 24
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> cap_sys_resource & 1)
    return False


def _last_log() -> str:
    try:
        lines = LOG.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "  (no log)"
    return "\n".join(f"  {line}" for line in lines[-10:])
