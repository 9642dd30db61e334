"""Where a stack lives on this machine: state, passphrase and configuration, outside the checkout.

::

    <data directory>/            0700   $DIFY_KIT_HOME, $XDG_DATA_HOME/dify-kit or ~/.local/share/dify-kit
      passphrase                 0600   decrypts the secrets of every stack below
      state/                     0700   Pulumi's file backend
      stacks/Pulumi.<stack>.yaml 0600   the stack's configuration; the checkout holds a link to it
      stacks/proxy-keys.<stack>.json 0600  keys issued to callers of the LLM proxy, as hashes
      stacks/clients.<stack>.json 0600  its OAuth clients, by hashes of their secrets
      runs/                      0700   locks, the record of the run in progress, journals of upgrades
      logs/                      0700   Pulumi's own output of the last run of each kind
      restored/<stack>/          0700   files that the settings of a restored stack name
      verifying/                 0700   of each `backup verify` that runs, a data directory of its own
      backups/                   0700   archives that `upgrade` makes, and the passphrase that opens them

A deleted checkout therefore loses nothing, and a copy of this one directory is the backup of the keys.
"""

import fcntl
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from dify_kit.errors import KitError, UsageError
from infra.catalogue.project import STACK_NAME, STACK_NAME_RULE
from infra.catalogue.yaml_reader import read_yaml

PROJECT = "dify"
CHECKOUT = Path(__file__).resolve().parents[2]
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def check_stack_name(stack: str) -> str:
    """Return ``stack`` when it can name containers, networks and volumes; raise UsageError otherwise."""
    if not STACK_NAME.fullmatch(stack):
        raise UsageError(
            f"stack name {stack!r} cannot be used",
            f"use {STACK_NAME_RULE}",
        )
    return stack


def _close_to_others(path: Path, mode: int) -> None:
    info = path.stat()
    if info.st_uid != os.geteuid():
        raise KitError(
            f"{path} belongs to another user (uid {info.st_uid}, you are {os.geteuid()})",
            "run as that user, change the owner with chown, or set DIFY_KIT_HOME to a directory of your own",
        )
    if stat.S_IMODE(info.st_mode) & _OTHERS:
        path.chmod(mode)


@dataclass(frozen=True, kw_only=True)
class DataDir:
    """The directory that outlives the checkout."""

    root: Path

    @classmethod
    def locate(cls, environ: Mapping[str, str] | None = None) -> "DataDir":
        """Find the directory from the environment; it need not exist yet."""
        environ = os.environ if environ is None else environ
        if chosen := environ.get("DIFY_KIT_HOME"):
            return cls(root=Path(chosen).expanduser().absolute())
        shared = environ.get("XDG_DATA_HOME", "")
        # The XDG specification tells programs to ignore a relative path.
        base = Path(shared) if os.path.isabs(shared) else Path.home() / ".local" / "share"  # noqa: PTH117  # text
        return cls(root=base / "dify-kit")

    @property
    def state(self) -> Path:
        """Pulumi's file backend."""
        return self.root / "state"

    @property
    def passphrase(self) -> Path:
        """The file with the passphrase of the stacks' secrets."""
        return self.root / "passphrase"

    @property
    def stacks(self) -> Path:
        """The stacks' configuration files."""
        return self.root / "stacks"

    @property
    def runs(self) -> Path:
        """Locks and records of runs in progress."""
        return self.root / "runs"

    @property
    def logs(self) -> Path:
        """Pulumi's own output."""
        return self.root / "logs"

    def restoring(self, stack: str) -> Path:
        """Return the mark of a restore of a stack that has not finished."""
        return self.runs / f"{stack}.restoring"

    def backup(self, stack: str) -> Path:
        """Return the record of a stack's last backup."""
        return self.runs / f"{stack}.backup"

    def backing_up(self, stack: str) -> Path:
        """Return the mark of a backup that has not ended."""
        return self.runs / f"{stack}.backing-up"

    def upgrade(self, stack: str) -> Path:
        """Return the journal of a stack's last upgrade."""
        return self.runs / f"{stack}.upgrade"

    @property
    def backups(self) -> Path:
        """The archives that upgrades make, with the passphrase that the kit generates for them."""
        return self.root / "backups"

    @property
    def verifying(self) -> Path:
        """The data directories of `backup verify` while it runs."""
        return self.root / "verifying"

    def planned(self, stack: str) -> Path:
        """Return the directory of the same files while a restore is checked."""
        return self.root / "restored" / f".{stack}"

    def restored(self, stack: str) -> Path:
        """Return the directory of files that the settings of a restored stack name: apps, templates, CAs."""
        return self.root / "restored" / stack

    def stack_names(self) -> list[str]:
        """Return the names of the stacks that are configured here."""
        found = [path.name.split(".")[1:-1] for path in self.stacks.glob("Pulumi.*.yaml")]
        return sorted(names[0] for names in found if len(names) == 1)

    def prepare(self) -> None:
        """Create what is missing and close everything to other users."""
        for directory in (self.root, self.state, self.stacks, self.runs, self.logs):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _close_to_others(directory, 0o700)
        for file in (
            self.passphrase,
            *self.stacks.glob("Pulumi.*.yaml"),
            *self.stacks.glob("proxy-keys.*.json"),
            *self.stacks.glob("clients.*.json"),
        ):
            if file.is_file():
                _close_to_others(file, 0o600)

    def ensure_passphrase(self) -> None:
        """Generate the passphrase once. Raises KitError when it is gone but secrets still depend on it."""
        if self.passphrase.is_file():
            try:
                passphrase = self.passphrase.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as problem:
                raise KitError(
                    f"the passphrase file {self.passphrase} cannot be read: {problem}",
                    "restore it from your backup",
                ) from None
            if not passphrase:
                raise KitError(
                    f"the passphrase file {self.passphrase} is empty", "restore it from your backup"
                )
            return
        dependents = sorted(self.stacks.glob("Pulumi.*.yaml"))
        if dependents:
            raise KitError(
                f"{self.passphrase} is missing, and {dependents[0]} is encrypted with it",
                f"restore {self.passphrase} from your backup, or set PULUMI_CONFIG_PASSPHRASE_FILE",
            )
        write_private(self.passphrase, secrets.token_urlsafe(32) + "\n")


def write_private(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` so that it is never readable by others and never half-written."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class StackFiles:
    """One stack's files: where its configuration is stored, and the link that Pulumi reads."""

    stack: str
    data: DataDir
    checkout: Path

    @classmethod
    def open(cls, stack: str, environ: Mapping[str, str] | None = None) -> "StackFiles":
        """Check the name, prepare the data directory, and put the link into the checkout."""
        check_stack_name(stack)
        files = cls(stack=stack, data=DataDir.locate(environ), checkout=CHECKOUT)
        files.data.prepare()
        files.link()
        return files

    @classmethod
    def look(cls, stack: str, environ: Mapping[str, str] | None = None) -> "StackFiles":
        """Check the name, for a command that only looks: no directory, mode or link changes."""
        return cls(stack=check_stack_name(stack), data=DataDir.locate(environ), checkout=CHECKOUT)

    @property
    def stored(self) -> Path:
        """The configuration in the data directory."""
        return self.data.stacks / f"Pulumi.{self.stack}.yaml"

    @property
    def linked(self) -> Path:
        """The path where Pulumi looks for the configuration."""
        return self.checkout / f"Pulumi.{self.stack}.yaml"

    @property
    def config_file(self) -> Path:
        """The file that counts: the operator's own in the checkout, else the stored one."""
        return self.linked if self.own_file() else self.stored

    def own_file(self) -> bool:
        """Whether the operator keeps the configuration in the checkout (a file or a link of their own)."""
        if self.linked.is_symlink():
            target = self.linked.readlink()
            return not (target.name == self.linked.name and target.parent.name == "stacks")
        return self.linked.exists()

    def link(self) -> None:
        """Let Pulumi find the stored configuration. The operator's own file is never touched."""
        if self.own_file():
            return
        if self.linked.is_symlink():
            if self.linked.readlink() == self.stored:
                return
            self.linked.unlink()
        if self.stored.exists():
            self.linked.symlink_to(self.stored)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the link while Pulumi may write the configuration.

        Pulumi 3.259 writes through a link; a release that replaced it by a file would strand the secrets in
        the checkout, so such a file is moved back.
        """
        ours = not self.own_file()
        if ours:
            self.link()
            if not self.linked.is_symlink():
                self.linked.symlink_to(self.stored)
        try:
            yield
        finally:
            if ours and self.linked.is_file() and not self.linked.is_symlink():
                write_private(self.stored, self.linked.read_text(encoding="utf-8"))
                self.linked.unlink()
            if ours and self.stored.is_file():
                _close_to_others(self.stored, 0o600)
            if ours:
                if self.linked.is_symlink() and not self.linked.exists():
                    self.linked.unlink()
                self.link()

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """Yield a copy of the settings. What the block makes of it takes their place at its end, in one move.

        Pulumi truncates the file that it writes: one that is killed there would leave no secret. An exception of the
        block leaves the settings as they are.
        """
        before = self.config_file.read_text(encoding="utf-8") if self.config_file.exists() else "{}\n"
        # Its name ends as Pulumi demands it.
        path = self.data.stacks / f".edit-{self.stack}.{os.getpid()}.yaml"
        write_private(path, before)
        try:
            yield path
            after = path.read_text(encoding="utf-8")
            if after == before:
                return
            if self.own_file():
                # A file, or a link, of the operator's own stays what it is.
                self.linked.write_text(after, encoding="utf-8")
            else:
                write_private(self.stored, after)
        finally:
            path.unlink(missing_ok=True)

    def document(self) -> dict[str, object]:
        """Return the stack's file; empty when there is none. Raises KitError that names it and the way back."""
        back = f"fix the file, or restore it from your backup of {self.data.root}"
        try:
            raw = self.config_file.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as problem:
            raise KitError(
                f"{self.config_file} cannot be read: {problem.strerror or problem}", back
            ) from None
        try:
            document = read_yaml(raw.decode("utf-8"))
        except UnicodeDecodeError as problem:
            line = raw.count(b"\n", 0, problem.start) + 1
            raise KitError(
                f"{self.config_file}, line {line}: the file is not UTF-8 (byte 0x{raw[problem.start]:02x})",
                f"save it as UTF-8 (`iconv -f <its encoding> -t UTF-8`), or restore it from your backup of "
                f"{self.data.root}",
            ) from None
        except (yaml.YAMLError, ValueError, RecursionError) as problem:
            # An impossible date, or endless brackets, raises no YAMLError.
            raise KitError(f"{self.config_file} is not valid YAML: {problem}", back) from None
        if document is not None and not isinstance(document, dict):
            raise KitError(f"{self.config_file} is not a file of settings: it has no `key: value`", back)
        return dict(document or {})

    def config(self) -> dict[str, object]:
        """Return the configured keys as written; secrets stay encrypted ``{"secure": ...}`` mappings."""
        values = self.document().get("config")
        if values is not None and not isinstance(values, dict):
            raise KitError(
                f"{self.config_file}: `config` has no `key: value`",
                f"fix the file, or restore it from your backup of {self.data.root}",
            )
        return {str(key): value for key, value in (values or {}).items()}

    def configured(self) -> bool:
        """Whether ``init`` has finished for this stack; Pulumi's salt alone is not enough."""
        return any(key.startswith(f"{PROJECT}:") for key in self.config())

    def locked(self) -> bool:
        """Whether a dify-kit command is at work on this stack."""
        try:
            with (self.data.runs / f"{self.stack}.lock").open(encoding="utf-8") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every other dify-kit away from this stack. Raises KitError immediately when one runs."""
        path = self.data.runs / f"{self.stack}.lock"
        with path.open("a+", encoding="utf-8") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.seek(0)
                holder = stream.read().strip() or "unknown"
                raise KitError(
                    f"another dify-kit command is at work on stack {self.stack} (process {holder})",
                    "wait until it ends, then try again",
                ) from None
            stream.truncate(0)
            stream.write(str(os.getpid()))
            stream.flush()
            self._remove_drafts()
            yield

    def _remove_drafts(self) -> None:
        """Remove what a killed command left half-written. The caller holds the lock, so that no other one writes."""
        names = {
            self.data.runs: (f".{self.stack}.*.[0-9]*",),
            self.data.stacks: (
                f".Pulumi.{self.stack}.yaml.[0-9]*",
                f".*.{self.stack}.json.[0-9]*",
                f".edit-{self.stack}.[0-9]*.yaml",
                f".new-{self.stack}.yaml",
                f"..new-{self.stack}.yaml.[0-9]*",
                f"..edit-{self.stack}.*.yaml.[0-9]*",
            ),
        }
        for folder, patterns in names.items():
            for path in (one for pattern in patterns for one in folder.glob(pattern)):
                path.unlink(missing_ok=True)
