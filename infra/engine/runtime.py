"""What the kit does with a service that runs, on any platform: commands, files, logs, state.

The state of a stack names what runs by a reference: the id or the name of a Docker container, or `<platform>:...` of
another platform. A platform brings a module with a function `connect(reference, timeout)`, named in MODULES.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType, TracebackType
from typing import Protocol, Self, cast

from infra.engine import packages

DOCKER = "docker"
# A reference without a platform is one of Docker, whose ids and names hold no colon.
MODULES: Mapping[str, str] = MappingProxyType(
    {DOCKER: "infra.engine.docker_runtime", "kubernetes": "infra.engine.pod_runtime"}
)
RUNNING = "running"


class WorkloadError(Exception):
    """What was asked for did not happen. It may have begun."""


class WorkloadMissingError(WorkloadError):
    """What the reference names does not exist, or does not run."""


class CommandFailedError(WorkloadError):
    """A command ended with another code than 0; `errors` is the end of what it wrote to standard error."""

    def __init__(self, what: str, code: int, errors: str) -> None:
        super().__init__(f"{what} ended with code {code}: {errors.strip()[-500:] or 'it says nothing'}")
        self.code = code
        self.errors = errors


class UnreachableError(WorkloadError):
    """What runs the workloads does not answer."""


@dataclass(frozen=True, kw_only=True)
class State:
    """A workload as its platform shows it, in Docker's terms.

    `status` is `created`, `running`, `restarting`, `removing`, `exited` or `dead`; `health` is what the checks of the
    platform found, `healthy`, `unhealthy` or `starting`, and empty where it makes none. `restarts` counts starts after
    the first one. `exit_code` and `finished` are those of the last end, None before the first one. `reason` says in a
    few words why it has not started, or how the last run ended; empty where the platform names none.
    """

    status: str
    health: str = ""
    restarts: int = 0
    exit_code: int = 0
    finished: datetime | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A command that ended in the container: exit code, and both of its streams as text."""

    code: int
    output: str


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a command wrote until it ended, answered, or its time was up (`late`: it was left running).

    `code` is None of a command that was not waited for.
    """

    stdout: bytes
    stderr: bytes
    late: bool = False
    code: int | None = None


class Runtime(Protocol):
    """One workload, by its reference. A context that closes its connection.

    Methods raise WorkloadError, and what the platform's client raises for a connection that breaks.
    """

    def __enter__(self) -> Self:
        """Return this."""

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""

    def identity(self) -> str:
        """Return what changes when another workload takes the place. Raises WorkloadMissingError."""

    def state(self) -> State | None:
        """Return the state, None when there is no such workload."""

    def run(self, command: Sequence[str], *, root: bool = False) -> Ran:
        """Run a command that ends by itself. Raises WorkloadError when none can run."""

    def ask(self, command: Sequence[str], *, seconds: float, line: bytes = b"") -> Said:
        """Run a command for at most `seconds`, with `line` on its standard input when given.

        With a line the answer is a line too, and over when that has come. Secrets go this way: neither arguments nor
        environment show them.
        """

    def read(self, command: Sequence[str]) -> Iterator[bytes]:
        """Run a command and yield its standard output in blocks, of which no more than one is held.

        Raises CommandFailedError after the last block of a command that fails, WorkloadError when the connection
        breaks, or nothing comes for as long as an answer of the platform may take.
        """

    def write(self, command: Sequence[str], content: Iterable[bytes], *, seconds: float) -> Ran:
        """Run a command with content on its standard input, of which no more than one block is held.

        The input is not closed: the command ends by what it reads. It has `seconds` for each block, and as long to end
        after the last one. The output of the result is the end of both streams. Raises WorkloadError.
        """

    def unpack(self, directory: str, archive: bytes) -> None:
        """Unpack a tar into a directory of the container as root: owners and modes are those of its entries.

        Raises WorkloadError.
        """

    def address_in(self, network: str) -> str:
        """Return the address in a network, by its name on the platform; empty when it is not running there."""

    def logs(
        self,
        *,
        lines: int | None = None,
        since: float | None = None,
        errors: bool = False,
        times: bool = False,
    ) -> bytes:
        """Return what was logged: all, or the last `lines`, or what came since a moment (seconds of the epoch).

        `errors`: of standard error alone. `times`: each line with its time.
        """

    def follow(self, *, since: float) -> Iterator[bytes]:
        """Yield what is logged from a moment (seconds of the epoch) on, with times, in pieces of any length.

        It ends when the workload does. Raises what the platform's client raises when the connection breaks.
        """

    def cpu_seconds(self) -> float:
        """Return the CPU time that was used, 0 where it is not reported."""

    def memory_bytes(self) -> int:
        """Return the memory in use, without the cache of files that can be dropped; 0 where it is not reported."""

    def ending(self) -> int:
        """Return how many others of the same workload still end their work after their places were taken."""

    def start(self) -> None:
        """Start a workload that has ended again."""

    def restart(self, grace: int) -> None:
        """Restart it; it gets `grace` seconds to end."""


class Module(Protocol):
    """A module of MODULES."""

    def connect(self, reference: str, timeout: float) -> Runtime:
        """Return the workload; `timeout` bounds each answer of the platform, in seconds. Raises UnreachableError."""


def runtime(reference: str, timeout: float) -> Runtime:
    """Return the workload that a reference names. Raises UnreachableError, and what the choice of an engine raises."""
    platform, colon, _ = reference.partition(":")
    module = MODULES.get(platform if colon else DOCKER)
    if module is None:
        raise UnreachableError(
            f"{reference!r} names something on the platform {platform!r}, which this version of the kit does not know; "
            f"known are {', '.join(MODULES)}"
        )
    # Imported where it is used: the providers are pickled, and no program needs more than one client.
    return cast("Module", packages.whole(module)).connect(reference, timeout)
