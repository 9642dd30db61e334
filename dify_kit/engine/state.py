"""Reading Pulumi's state without starting Pulumi.

A Pulumi command costs 0.3-3 s before it does anything. The file backend is a tree of JSON files, so what the
command line must know before an ``up`` is read from there; any other backend is asked by ``stack export``.
Below ``.pulumi``: ``stacks/<project>/<stack>.json[.gz]``, ``locks/organization/<project>/<stack>/*.json``.
"""

import gzip
import json
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from dify_kit.errors import KitError
from dify_kit.workspace.files import PROJECT, StackFiles
from infra import hints

_STACK_TYPE = "pulumi:pulumi:Stack"
_WORKLOADS = ("kubernetes:apps/", "kubernetes:batch/")
# Pulumi marks every special value, secrets among them, with this key.
_SIGNATURE = "4dabf18193072939515e22adb298388d"


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """A Deployment, a StatefulSet or a Job as it was deployed last: its pods, and the image of its template.

    ``replicas`` is None where an autoscaler chooses them.
    """

    replicas: int | None
    image: str


@dataclass(frozen=True, kw_only=True)
class StackState:
    """The resources in Pulumi's state.

    ``ids`` are provider ids (full container and network ids among them); ``pending_creates`` are URNs of
    creations that were under way when Pulumi was killed; ``protected`` are URNs that Pulumi refuses to delete;
    ``outputs`` are the stack's plain exports, ``workloads`` what makes the pods of a cluster, by provider id.
    """

    ids: frozenset[str] = frozenset()
    urns: frozenset[str] = frozenset()
    protected: frozenset[str] = frozenset()
    pending_creates: tuple[str, ...] = ()
    pending_others: tuple[str, ...] = ()
    outputs: Mapping[str, Any] = field(default_factory=dict)
    workloads: Mapping[str, Deployed] = field(default_factory=dict)

    @classmethod
    def parse(cls, snapshot: Mapping[str, Any] | None) -> "StackState":
        """Read a snapshot: ``checkpoint.latest`` of the file backend, ``deployment`` of an export."""
        snapshot = snapshot or {}
        resources = [entry for entry in snapshot.get("resources") or [] if isinstance(entry, dict)]
        pending = [entry for entry in snapshot.get("pending_operations") or [] if isinstance(entry, dict)]
        outputs: dict[str, Any] = {}
        for resource in resources:
            if resource.get("type") == _STACK_TYPE:
                outputs = {k: v for k, v in (resource.get("outputs") or {}).items() if not _special(v)}
        return cls(
            ids=frozenset(str(r["id"]) for r in resources if r.get("id")),
            urns=frozenset(str(r["urn"]) for r in resources if r.get("type") != _STACK_TYPE),
            protected=frozenset(str(r["urn"]) for r in resources if r.get("protect")),
            pending_creates=tuple(_urn(p) for p in pending if p.get("type") == "creating"),
            pending_others=tuple(_urn(p) for p in pending if p.get("type") != "creating"),
            outputs=outputs,
            workloads={
                str(r["id"]): found for r in resources if r.get("id") and (found := _workload(r)) is not None
            },
        )


def _workload(resource: Mapping[str, Any]) -> Deployed | None:
    """Return what a resource makes pods of; None for one that makes none, or whose manifest is a secret."""
    kind = str(resource.get("type") or "")
    if not kind.startswith(_WORKLOADS):
        return None
    try:
        spec = resource["inputs"]["spec"]
        image = spec["template"]["spec"]["containers"][0]["image"]
        number = spec.get("replicas")
        return Deployed(
            replicas=None if number is None else int(number), image=image if isinstance(image, str) else ""
        )
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def _special(value: object) -> bool:
    if isinstance(value, dict):
        return _SIGNATURE in value or any(_special(entry) for entry in value.values())
    return isinstance(value, list) and any(_special(entry) for entry in value)


def secrets_of(snapshot: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each encrypted value of a snapshot: its path, and its ciphertext.

    The path of one of the stack's exports begins with `outputs`, that of a resource's with the resource's name.
    """
    for resource in snapshot.get("resources") or []:
        exported = resource.get("type") == _STACK_TYPE
        name = "outputs" if exported else str(resource.get("urn", "")).rsplit("::", 1)[-1]
        for part in ("outputs",) if exported else ("inputs", "outputs"):
            yield from _ciphertexts(resource.get(part) or {}, (name,))


def _ciphertexts(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, dict):
        if _SIGNATURE in value:
            if isinstance(text := value.get("ciphertext"), str):
                yield path, text
            return
        for key, one in value.items():
            yield from _ciphertexts(one, (*path, str(key)))
    elif isinstance(value, list):
        for one in value:
            yield from _ciphertexts(one, path)


def _urn(operation: Mapping[str, Any]) -> str:
    return str((operation.get("resource") or {}).get("urn", ""))


@dataclass(frozen=True, kw_only=True)
class Update:
    """A change of the stack in Pulumi's history: `kind` is update, refresh or destroy, `result` succeeded or failed.

    `changes` are numbers of resources by operation. Settings, which the history has too, are left out.
    """

    kind: str
    result: str
    ended: datetime | None
    message: str = ""
    changes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> "Update":
        """Read an entry of the history: times are seconds in files, and ISO 8601 as Pulumi prints them."""
        ended = content.get("endTime")
        when: datetime | None = None
        if isinstance(ended, int | float) and ended:
            when = datetime.fromtimestamp(ended, tz=UTC)
        elif isinstance(ended, str) and ended:
            when = datetime.fromisoformat(ended)
        return cls(
            kind=str(content.get("kind") or ""),
            result=str(content.get("result") or ""),
            ended=when,
            message=str(content.get("message") or ""),
            changes={str(key): int(value) for key, value in (content.get("resourceChanges") or {}).items()},
        )


@dataclass(frozen=True, kw_only=True)
class Lock:
    """A lock file of the file backend: who holds the stack."""

    path: Path
    pid: int
    holder: str
    host: str
    since: str

    def held(self) -> bool | None:
        """Whether its process lives; None when it ran on another host, where that is unknown."""
        if self.host and self.host != socket.gethostname():
            return None
        return pulumi_alive(self.pid)


def pulumi_alive(pid: int) -> bool:
    """Whether process ``pid`` is a running Pulumi. Numbers are reused, so its command line is looked at."""
    command = Path(f"/proc/{pid}/cmdline")
    if command.exists():
        try:
            return b"pulumi" in command.read_bytes()
        except OSError:
            return False
    if Path("/proc/self").exists():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@dataclass(frozen=True, kw_only=True)
class FileBackend:
    """The files of one stack below a ``file://`` backend."""

    root: Path
    stack: str
    project: str = PROJECT

    @classmethod
    def from_url(cls, url: str, stack: str) -> "FileBackend | None":
        """Return the backend at ``url``, or None when it is not on this machine."""
        if not url.startswith("file://"):
            return None
        path = unquote(url.removeprefix("file://").partition("?")[0])
        return cls(root=Path(path).expanduser().absolute(), stack=stack)

    @classmethod
    def of(cls, files: StackFiles, environ: Mapping[str, str] | None = None) -> "FileBackend | None":
        """Return the backend of a stack as Pulumi finds it, or None when it is not on this machine."""
        environ = os.environ if environ is None else environ
        return cls.from_url(environ.get("PULUMI_BACKEND_URL", f"file://{files.data.state}"), files.stack)

    @property
    def _checkpoint(self) -> Path:
        return self.root / ".pulumi" / "stacks" / self.project / f"{self.stack}.json"

    def exists(self) -> bool:
        """Whether the stack was created in this backend."""
        return self._checkpoint.exists() or self._checkpoint.with_suffix(".json.gz").exists()

    def files(self) -> list[Path]:
        """Return the stack's files and directories, history and backups among them."""
        base = self.root / ".pulumi"
        kinds = ("history", "backups", "locks/organization")
        directories = [base / kind / self.project / self.stack for kind in kinds]
        checkpoints = sorted(self._checkpoint.parent.glob(f"{self.stack}.json*"))
        return [*checkpoints, *(one for one in directories if one.exists())]

    def read(self) -> StackState:
        """Read the stack's resources; a stack that does not exist has none. Raises KitError."""
        return StackState.parse(self.snapshot())

    def snapshot(self) -> Mapping[str, Any]:
        """Return the stack's snapshot as it is stored, secrets encrypted; empty without one. Raises KitError."""
        plain, packed = self._checkpoint, self._checkpoint.with_suffix(".json.gz")
        try:
            if plain.exists():
                document = json.loads(plain.read_bytes())
            elif packed.exists():
                document = json.loads(gzip.decompress(packed.read_bytes()))
            else:
                return {}
            return dict((document.get("checkpoint") or {}).get("latest") or {})
        except (OSError, EOFError, ValueError, AttributeError) as problem:
            raise KitError(
                f"the state of stack {self.stack} cannot be read: {plain if plain.exists() else packed}: {problem}",
                f"take the best copy of it: {hints.kit('state', 'rebuild', stack=self.stack)}",
            ) from None

    def last_updates(self, count: int) -> list[Update]:
        """Return the last changes of the stack, the newest first; what cannot be read is left out."""
        directory = self.root / ".pulumi" / "history" / self.project / self.stack
        found: list[Update] = []
        # The names end with the time. Next to each is a file of attributes.
        paths = [
            *directory.glob(f"{self.stack}-*.history.json"),
            *directory.glob(f"{self.stack}-*.history.json.gz"),
        ]
        for path in sorted(paths, key=lambda one: one.name, reverse=True):
            try:
                raw = path.read_bytes()
                content = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
                found.append(Update.parse(content))
            except (OSError, ValueError, AttributeError, TypeError):
                continue
            if len(found) == count:
                break
        return found

    def locks(self) -> list[Lock]:
        """Return the locks on the stack, normally at most one."""
        directory = self.root / ".pulumi" / "locks" / "organization" / self.project / self.stack
        found = []
        for path in sorted(directory.glob("*.json")):
            try:
                content = json.loads(path.read_bytes())
            except (OSError, ValueError):
                content = {}
            found.append(
                Lock(
                    path=path,
                    pid=int(content.get("pid") or 0),
                    holder=str(content.get("username") or "unknown"),
                    host=str(content.get("hostname") or ""),
                    since=str(content.get("timestamp") or "an unknown time"),
                )
            )
        return found
