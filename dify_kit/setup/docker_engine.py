"""The Docker engine: used where one answers, installed and started where none does (Debian, Ubuntu)."""

import getpass
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import requests
from docker.errors import DockerException

from dify_kit.containers.docker_host import OTHER_ENGINE, SSH_HINT, chosen_engine
from dify_kit.errors import KitError
from dify_kit.setup.commands import apt_install, as_root, done, run_step
from dify_kit.talk import say
from infra.engine import ssh_problem

OLDEST = (20, 10)
START_SECONDS = 60
INSTALL_SECONDS = 900
SOCKET = Path("/var/run/docker.sock")
PID_FILE = Path("/var/run/docker.pid")
CONFIGURATION = Path("/etc/docker/daemon.json")
# A part of what Docker takes by default, cut into 512 networks of 256 addresses.
POOL, POOL_NETWORK_BITS = "172.18.0.0/15", 24
LOG = Path("/var/log/dify-kit-dockerd.log")
OWN_ENGINE = "install a Docker engine (version 20.10 or newer), or point DOCKER_HOST at one, then try again"
_CAP_SYS_RESOURCE = 24
# The last major version of dockerd that protects itself from the out-of-memory killer and has the option.
_LAST_WITH_OOM_OPTION = 24
_LAST_LINES = 10
_LOG_HINTS = (
    (
        "permission denied",
        "is this a container? dockerd needs nearly all capabilities, and a writable /sys/fs/cgroup",
    ),
    (
        "iptables",
        "dockerd could not set up its firewall rules: are iptables installed and the kernel's modules there?",
    ),
    ("no space left", "free disk space in /var/lib/docker"),
    ("pid file found", f"another dockerd runs, or one was killed: then remove {PID_FILE}"),
    ("Devices cgroup isn't mounted", "mount the control groups on /sys/fs/cgroup"),
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back from the engine: a version, or the problem."""

    version: str = ""
    problem: str = ""

    @property
    def denied(self) -> bool:
        """Whether an engine is there, and this user may not use it."""
        return "Permission denied" in self.problem


def ask() -> Answer:
    """Ask the engine for its version. Raises KitError when docker's own rules choose none."""
    try:
        answer: dict[str, str] = chosen_engine().client(5).version()
    except (DockerException, requests.RequestException, OSError) as problem:
        return Answer(problem=str(problem) or type(problem).__name__)
    return Answer(version=answer["Version"])


def version_numbers(text: str) -> tuple[int, ...]:
    """Return major and minor version found in ``text``; empty when there is none."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return tuple(int(part) for part in found.groups()) if found else ()


def ensure_docker() -> None:
    """Make sure that an engine answers. Raises KitError with the reason and the next thing to try."""
    answer = ask()
    if not answer.version:
        answer = _mend(answer)
    if version_numbers(answer.version) < OLDEST:
        raise KitError(
            f"the Docker engine is {answer.version}; the kit needs {'.'.join(map(str, OLDEST))} or newer",
            "upgrade it, then try again",
        )
    done("Docker engine", f"{answer.version} answers")


def _mend(answer: Answer) -> Answer:
    """Do what is missing until the engine answers, and return its answer."""
    endpoint = chosen_engine()
    if endpoint.address.removeprefix("unix://") not in {str(SOCKET), "/run/docker.sock"}:
        missing = ssh_problem(endpoint)
        raise KitError(
            f"the Docker engine at {endpoint} does not answer: {missing or answer.problem}",
            SSH_HINT if missing else f"start it, or choose an engine of this machine: {OTHER_ENGINE}",
        )
    if not answer.denied:
        if shutil.which("dockerd", path=_admin_path()) is None:
            _install()
            answer = ask()
        if not answer.version and not answer.denied:
            answer = _start()
    return _grant_access() if answer.denied else answer


def _admin_path() -> str:
    # Debian keeps dockerd where ordinary users do not look.
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin", "/sbin"])


def _install() -> None:
    hint = "are Debian's package sources reachable? Otherwise " + OWN_ENGINE
    apt_install(["docker.io", "iptables"], hint=hint, seconds=INSTALL_SECONDS)
    if shutil.which("docker") is None:
        # Debian 13 keeps the client in a package of its own.
        apt_install(["docker-cli"], hint=hint, seconds=INSTALL_SECONDS)


def _start() -> Answer:
    """Start the engine, and return its answer; that may be a refusal of this user."""
    if _systemd():
        run_step(
            "starting the Docker engine",
            as_root(["systemctl", "enable", "--now", "docker"]),
            hint="`systemctl status docker` says more",
            seconds=START_SECONDS,
        )
        return _wait("`journalctl -u docker` says more", Path(os.devnull))
    if _runs():
        say("→ a Docker engine is starting up already; waiting for it ...")
        return _wait(
            f"if it hangs, end process {PID_FILE.read_text(encoding='ascii').strip()} and try again", LOG
        )
    dockerd = shutil.which("dockerd", path=_admin_path())
    if dockerd is None:
        raise KitError("the Docker engine was installed, but there is no dockerd", OWN_ENGINE)
    say("→ starting the Docker engine (detached, as there is no systemd) ...")
    # The program and its log are arguments of the script, not a part of its text.
    script = 'PATH="$PATH:/usr/sbin:/sbin"; log=$1; shift; exec setsid --fork "$@" >"$log" 2>&1 </dev/null'
    command = as_root(["/bin/sh", "-c", script, "sh", str(LOG), dockerd, *daemon_options(dockerd)])
    try:
        subprocess.run(command, check=True, timeout=START_SECONDS)
    except (OSError, subprocess.SubprocessError) as problem:
        raise KitError(f"the Docker engine could not be started: {problem}", OWN_ENGINE) from None
    return _wait(f"its log is {LOG}", LOG)


def _systemd() -> bool:
    return Path("/run/systemd/system").is_dir()


def _runs() -> bool:
    """Whether the process that the pid file names is a living dockerd."""
    try:
        pid = int(PID_FILE.read_text(encoding="ascii"))
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == "dockerd"
    except (OSError, ValueError):
        return False


def daemon_options(dockerd: str) -> list[str]:
    """Return the options that this machine needs."""
    return [*_oom_options(dockerd), *_network_options()]


def _network_options() -> list[str]:
    """Return smaller networks than the default ones, of which there are about thirty: three or four stacks.

    The engine does not start when its configuration file says something else about them.
    """
    try:
        if "default-address-pools" in CONFIGURATION.read_text(encoding="utf-8"):
            return []
    except FileNotFoundError:
        pass
    return [f"--default-address-pool=base={POOL},size={POOL_NETWORK_BITS}"]


def _oom_options(dockerd: str) -> list[str]:
    """Return what keeps dockerd away from its own score with the out-of-memory killer.

    Up to version 24 dockerd lowers it, and fails where it may not, as in most containers. Later versions
    neither do that nor know the option.
    """
    if _may_lower_oom_score():
        return []
    answer = subprocess.run(
        [dockerd, "--version"], check=False, capture_output=True, text=True, timeout=30
    ).stdout
    major = (version_numbers(answer) or (0,))[0]
    return ["--oom-score-adjust=0"] if major <= _LAST_WITH_OOM_OPTION else []


def _may_lower_oom_score() -> bool:
    """Whether root may do it here: what counts is the bounding set, also for sudo."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return True
    found = re.search(r"^CapBnd:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return found is None or bool(int(found.group(1), 16) >> _CAP_SYS_RESOURCE & 1)


def _wait(hint: str, log: Path) -> Answer:
    """Wait until the engine answers or refuses this user. Raises KitError with what was last seen."""
    deadline = time.monotonic() + START_SECONDS
    answer = ask()
    while not answer.version and not answer.denied:
        if time.monotonic() > deadline:
            words = last_words(log)
            raise KitError(
                f"the Docker engine did not answer within {START_SECONDS} s: {answer.problem}\n{words}",
                next((advice for sign, advice in _LOG_HINTS if sign in words), hint),
            )
        time.sleep(0.3)
        answer = ask()
    return answer


def last_words(log: Path) -> str:
    """Return the last lines of a log, indented."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return "\n".join(f"  {line}" for line in lines[-_LAST_LINES:]) or "  (no log)"


def _grant_access() -> Answer:
    """Let this user use the socket: by group for later sessions, by an access list for this one."""
    user = getpass.getuser()
    by_hand = f"`sudo usermod --append --groups docker {user}`, then log in again"
    say(f"  the Docker engine runs, and user {user} may not use it: adding {user} to group docker")
    run_step(
        f"adding {user} to group docker",
        as_root(["usermod", "--append", "--groups", "docker", user]),
        hint=by_hand,
        seconds=START_SECONDS,
    )
    if shutil.which("setfacl") is None:
        apt_install(["acl"], hint=by_hand, seconds=INSTALL_SECONDS)
    run_step(
        "opening the socket for this session",
        as_root(["setfacl", "--modify", f"user:{user}:rw", str(SOCKET)]),
        hint=f"log in again: {user} is in group docker from then on",
        seconds=START_SECONDS,
    )
    answer = ask()
    if not answer.version:
        raise KitError(
            f"the Docker engine still refuses user {user}: {answer.problem}", "log in again, then try again"
        )
    return answer
