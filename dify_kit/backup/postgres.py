"""Dumps PostgreSQL databases and loads them, with the server's own programs in its own container.

The password is read in the container from the file that the server has: it is in no argument and leaves no container.
"""

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from docker.utils import socket as docker_socket

from dify_kit.backup.volumes import BROKEN
from dify_kit.errors import KitError
from infra.catalogue.container_paths import POSTGRES_PASSWORD_FILE

# The services of the catalogue that are PostgreSQL.
SERVICES = ("db-postgres", "pgvector")
_LOGIN = f'PGPASSWORD=$(cat {POSTGRES_PASSWORD_FILE}) PGOPTIONS="-c client_min_messages=warning" exec "$@"'
_PLACE = ("--host", "127.0.0.1", "--username", "postgres", "--no-password")
_COMPLETE = b"-- PostgreSQL database dump complete"
_TAIL_BYTES = 4096
_MOST_OUTPUT = 16 << 10
_END_SECONDS = 3600.0
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")

# A table without columns has no list of them.
_COPY = re.compile(rb'COPY ((?:"(?:[^"]|"")*"|[^" .]+)(?:\.(?:"(?:[^"]|"")*"|[^" .]+))?) .*FROM stdin;')


def _command(*words: str) -> list[str]:
    return ["sh", "-c", _LOGIN, "sh", *words]


@dataclass(kw_only=True)
class Rows:
    """The rows of each table in a plain dump: in its text, a row of a COPY block is one line."""

    tables: dict[str, int] = field(default_factory=dict)
    _table: str = ""
    _rest: bytes = b""

    def feed(self, block: bytes) -> None:
        """Take the next bytes of the dump."""
        lines, newline, self._rest = (self._rest + block).rpartition(b"\n")
        text, at = lines + newline, 0
        while at < len(text):
            at = self._rows(text, at) if self._table else self._line(text, at)

    def _line(self, text: bytes, at: int) -> int:
        end = text.index(b"\n", at)
        if found := _COPY.fullmatch(text, at, end):
            self._table = found[1].decode()
            self.tables[self._table] = 0
        return end + 1

    def _rows(self, text: bytes, at: int) -> int:
        """Count rows up to the end of the block or of the text."""
        if text.startswith(b"\\.\n", at):
            self._table = ""
            return at + 3
        end = text.find(b"\n\\.\n", at)
        until = len(text) if end < 0 else end + 1
        self.tables[self._table] += text.count(b"\n", at, until)
        return until


@dataclass(kw_only=True)
class Postgres:
    """The PostgreSQL in one container, by docker's client."""

    client: Any
    container: str

    def databases(self) -> list[str]:
        """Return the databases that hold data. Raises KitError."""
        found = self.query(
            "postgres", "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY datname"
        )
        names = [name for name in found if name != "postgres"]
        if strange := [name for name in names if not _NAME.fullmatch(name)]:
            raise KitError(f"database {strange[0]!r} cannot be backed up: its name", "rename it")
        return names

    def query(self, database: str, sql: str) -> list[str]:
        """Return the lines that a query answers. Raises KitError."""
        code, output = self._run(
            "psql", *_PLACE, "-XAtq", "-v", "ON_ERROR_STOP=1", "--dbname", database, "--command", sql
        )
        if code:
            raise KitError(f"{self.container}: {output.strip()[-500:]}", "see the logs of the database")
        return output.splitlines()

    def _run(self, *words: str) -> tuple[int, str]:
        try:
            made = self.client.api.exec_create(self.container, _command(*words))
            output: bytes = self.client.api.exec_start(made["Id"])
            return int(self.client.api.exec_inspect(made["Id"])["ExitCode"]), output.decode(errors="replace")
        except BROKEN as problem:
            raise KitError(f"{self.container} cannot be asked: {problem}", "is the stack up?") from None

    def dump(self, database: str, rows: Rows) -> Iterator[bytes]:
        """Yield a plain dump of one moment, and count its rows. Raises KitError at its end when it is not complete."""
        command = _command("pg_dump", *_PLACE, "--format=plain", "--encoding=UTF8", "--dbname", database)
        errors, tail = b"", b""
        try:
            made = self.client.api.exec_create(self.container, command)
            for stdout, stderr in self.client.api.exec_start(made["Id"], stream=True, demux=True):
                errors = (errors + (stderr or b""))[-_MOST_OUTPUT:]
                if stdout:
                    rows.feed(stdout)
                    tail = (tail + stdout)[-_TAIL_BYTES:]
                    yield stdout
            code = self.client.api.exec_inspect(made["Id"])["ExitCode"]
        except BROKEN as problem:
            raise KitError(f"the dump of {database} broke off: {problem}", "run the command again") from None
        if code or _COMPLETE not in tail:
            said = errors.decode(errors="replace").strip()[-500:]
            raise KitError(
                f"pg_dump of {database} ended with code {code}: {said or 'it is not complete'}",
                "see the logs of the database",
            )

    def load(self, database: str, dump: Iterator[bytes]) -> None:
        """Replace a database by a dump, in one transaction: one that breaks off leaves it empty. Raises KitError."""
        self.query("postgres", f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')
        self.query("postgres", f'CREATE DATABASE "{database}" TEMPLATE template0')
        command = _command(
            "psql", *_PLACE, "-Xq", "-v", "ON_ERROR_STOP=1", "--output", "/dev/null", "--dbname", database
        )
        try:
            made = self.client.api.exec_create(self.container, command, stdin=True)
            stream = self.client.api.exec_start(made["Id"], socket=True)
            code, said = self._feed(made["Id"], stream, dump)
        except BROKEN as problem:
            raise KitError(f"loading {database} broke off: {problem}", "run the same command again") from None
        if code:
            raise KitError(
                f"PostgreSQL refused the dump of {database} (psql's code {code}): {said.strip()[-800:]}",
                "the release, or its PostgreSQL, does not fit the archive; nothing of the database was loaded",
            )

    def _feed(self, run: str, stream: Any, dump: Iterator[bytes]) -> tuple[int, str]:  # noqa: ANN401
        """Send a dump between BEGIN and COMMIT; return psql's exit code and what it wrote."""
        raw = getattr(stream, "_sock", stream)
        # A server that builds an index answers nothing for long.
        raw.settimeout(None)
        said = bytearray()

        def listen() -> None:
            for _, block in docker_socket.frames_iter(stream, tty=False):  # type: ignore[no-untyped-call]
                said.extend(block)
                del said[:-_MOST_OUTPUT]

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        try:
            raw.sendall(b"BEGIN;\n")
            for block in dump:
                raw.sendall(block)
            # Not every way to an engine can be closed in one direction: so psql gets a command to end.
            raw.sendall(b"\nCOMMIT;\n\\q\n")
        except (BrokenPipeError, ConnectionResetError):
            # psql has ended before the dump: its exit code says why.
            pass
        except BaseException:
            raw.close()
            raise
        listener.join(_END_SECONDS)
        if listener.is_alive():
            raw.close()
            raise KitError(f"psql did not end within {_END_SECONDS:.0f} s", "see the logs of the database")
        code = self.client.api.exec_inspect(run)["ExitCode"]
        return int(1 if code is None else code), said.decode(errors="replace")

    def rows(self, database: str, tables: Sequence[str]) -> Mapping[str, int]:
        """Return the number of rows of each table, named as a dump names it. Raises KitError."""
        if not tables:
            return {}
        counts = [
            f"(SELECT count(*) FROM {table})"  # noqa: S608  # names as pg_dump quotes them
            for table in tables
        ]
        found = self.query(database, f"SELECT unnest(ARRAY[{', '.join(counts)}])")
        return dict(zip(tables, map(int, found), strict=True))
