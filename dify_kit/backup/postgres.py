"""Dumps PostgreSQL databases and loads them, with the server's own programs in its own container or pod.

The password is read in the container from the file that the server has: it is in no argument and leaves no container.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dify_kit.backup.blocks import gathered
from dify_kit.containers.docker_host import BROKEN
from dify_kit.errors import KitError
from infra.catalogue.container_paths import POSTGRES_PASSWORD_FILE
from infra.engine import runtime
from infra.engine.runtime import CommandFailedError

# The services of the catalogue that are PostgreSQL.
SERVICES = ("db-postgres", "pgvector")
_LOGIN = f'PGPASSWORD=$(cat {POSTGRES_PASSWORD_FILE}) PGOPTIONS="-c client_min_messages=warning" exec "$@"'
_PLACE = ("--host", "127.0.0.1", "--username", "postgres", "--no-password")
_COMPLETE = b"-- PostgreSQL database dump complete"
_TAIL_BYTES = 4096
# Between two blocks of an answer, and for one of a dump: a server that builds an index answers nothing for long.
_SECONDS, _END_SECONDS = 600.0, 3600.0
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
    """The PostgreSQL in one container or pod, by its reference; `name` is that of its service."""

    container: str
    name: str

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
        command = _command(
            "psql", *_PLACE, "-XAtq", "-v", "ON_ERROR_STOP=1", "--dbname", database, "--command", sql
        )
        try:
            with runtime.runtime(self.container, _SECONDS) as server:
                return b"".join(server.read(command)).decode(errors="replace").splitlines()
        except CommandFailedError as problem:
            raise KitError(
                f"{self.name}: {problem.errors.strip()[-500:]}", "see the logs of the database"
            ) from None
        except BROKEN as problem:
            raise KitError(f"{self.name} cannot be asked: {problem}", "is the stack up?") from None

    def dump(self, database: str, rows: Rows) -> Iterator[bytes]:
        """Yield a plain dump of one moment, and count its rows. Raises KitError at its end when it is not complete."""
        command = _command("pg_dump", *_PLACE, "--format=plain", "--encoding=UTF8", "--dbname", database)
        tail = b""
        try:
            with runtime.runtime(self.container, _SECONDS) as server:
                for block in gathered(server.read(command)):
                    rows.feed(block)
                    tail = (tail + block)[-_TAIL_BYTES:]
                    yield block
        except CommandFailedError as problem:
            raise KitError(
                f"pg_dump of {database} ended with code {problem.code}: {problem.errors.strip()[-500:]}",
                "see the logs of the database",
            ) from None
        except BROKEN as problem:
            raise KitError(f"the dump of {database} broke off: {problem}", "run the command again") from None
        if _COMPLETE not in tail:
            raise KitError(f"pg_dump of {database} is not complete", "see the logs of the database")

    def load(self, database: str, dump: Iterator[bytes]) -> None:
        """Replace a database by a dump, in one transaction: one that breaks off leaves it empty. Raises KitError."""
        self.query("postgres", f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')
        self.query("postgres", f'CREATE DATABASE "{database}" TEMPLATE template0')
        command = _command(
            "psql", *_PLACE, "-Xq", "-v", "ON_ERROR_STOP=1", "--output", "/dev/null", "--dbname", database
        )
        # The input is not closed at its end: so psql gets a command to end.
        content = itertools.chain([b"BEGIN;\n"], dump, [b"\nCOMMIT;\n\\q\n"])
        try:
            with runtime.runtime(self.container, _SECONDS) as server:
                ran = server.write(command, content, seconds=_END_SECONDS)
        except BROKEN as problem:
            raise KitError(f"loading {database} broke off: {problem}", "run the same command again") from None
        if ran.code:
            raise KitError(
                f"PostgreSQL refused the dump of {database} (psql's code {ran.code}): {ran.output.strip()[-800:]}",
                "the release, or its PostgreSQL, does not fit the archive; nothing of the database was loaded",
            )

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
