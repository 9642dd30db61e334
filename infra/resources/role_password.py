"""The password of a role in PostgreSQL, as its clients have it.

A database that exists does not follow POSTGRES_PASSWORD. The role gets another password through the socket inside the
container, by the verifier that PostgreSQL keeps of one (RFC 5803): neither its log nor a process list has the password.
PostgreSQL checks a password when a client connects, so connections that are open go on.

What connects from inside the container, as `dify-kit backup` does, reads the password in a file, which came with the
container: it gets the new one, too. A mounted Secret of a cluster follows by itself.
"""

import base64
import hashlib
import hmac
import io
import secrets
import tarfile
import time
from typing import Any

import pulumi
from pulumi import dynamic

from infra.engine.runtime import WorkloadError, runtime

ENGINE_TIMEOUT_SECONDS = 60
# PostgreSQL's own numbers: scram_iterations, and the bytes of its salts.
ITERATIONS, SALT_BYTES = 4096, 16
COMMAND_SECONDS = 60
TRIES = 3
DONE, REFUSED = "done", "password authentication failed"
# The first line is the password to connect with, where the server asks for one (`-W` reads it in any case, and without
# a terminal from standard input), the second one the statements. The answer is one line.
_SCRIPT = (
    "IFS= read -r password; IFS= read -r statements; "
    'said=$(printf "%s\\n%s\\n" "$password" "$statements" | '
    "psql -X -q -W -v ON_ERROR_STOP=1 -v VERBOSITY=terse -U postgres -d postgres 2>&1) "
    f'&& echo {DONE} || printf "failed: %s\\n" "$(printf "%s" "$said" | tr "\\n" " ")"'
)
# Of this session alone. A server may log statements, and those that fail.
_QUIET = (
    "SET log_statement = 'none'; SET log_min_duration_statement = -1; SET log_min_error_statement = 'panic'; "
)


class RolePasswordError(Exception):
    """The role did not get the password. The message has no secret."""


def verifier(password: str, salt: bytes) -> str:
    """Return what PostgreSQL stores of a password (SCRAM-SHA-256). It is printable ASCII, which SASLprep keeps."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    texts = [base64.b64encode(one).decode() for one in (salt, stored, server)]
    return f"SCRAM-SHA-256${ITERATIONS}:{texts[0]}${texts[1]}:{texts[2]}"


def statements(password: str) -> str:
    """Return the statements, in one line, that give the role `postgres` a password."""
    return f"{_QUIET}ALTER ROLE postgres PASSWORD '{verifier(password, secrets.token_bytes(SALT_BYTES))}';"


class RolePasswordProvider(dynamic.ResourceProvider):
    """Pickled by reference: this module must keep its name.

    Inputs: `container`, `service`, `password` (a secret), `file` (the path of its file, empty where none is written).
    """

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Set the password of a database that was made with it, or asks for none on its socket."""
        _set(props, [props["password"]])
        _write(props)
        return dynamic.CreateResult(f"role-{props['service']}", outs=props)

    def update(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> dynamic.UpdateResult:
        """Set another password, or the same one again in another container.

        A run that was killed may have set it without a record of that.
        """
        _set(news, list(dict.fromkeys([olds["password"], news["password"]])))
        _write(news)
        return dynamic.UpdateResult(outs=news)

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> dynamic.DiffResult:
        """Compare what was set, and where."""
        keys = ("container", "password", "file")
        return dynamic.DiffResult(changes=any(olds.get(key) != news.get(key) for key in keys))


class RolePassword(dynamic.Resource):
    """The password of the role `postgres` in the PostgreSQL of a container (a reference). `password` is a secret.

    `file` is where the container has it, empty where the platform writes that.
    """

    def __init__(
        self,
        name: str,
        *,
        container: pulumi.Input[str],
        service: str,
        password: pulumi.Input[str],
        file: str,
        opts: pulumi.ResourceOptions,
    ) -> None:
        props = {"container": container, "service": service, "password": password, "file": file}
        super().__init__(RolePasswordProvider(), name, props, opts)


def _set(props: dict[str, Any], passwords: list[str]) -> None:
    """Set a password, connecting with the first of `passwords` that the server takes. Raises RolePasswordError."""
    said = ""
    for password in passwords:
        said = _ask(props, password)
        if said == DONE:
            return
        if REFUSED not in said:
            break
    if REFUSED in said:
        raise RolePasswordError(
            f"{props['service']} rejects dify:postgresPassword: its volume was made with another value, or it was "
            "changed by hand. Set the value that the database has with the command `set postgresPassword`, run `up`, "
            "then rotate it"
        )
    raise RolePasswordError(f"{props['service']} did not take the password: {said or 'it did not answer'}")


def _write(props: dict[str, Any]) -> None:
    """Write the password to its file, which root alone reads. Raises RolePasswordError."""
    path = str(props.get("file") or "")
    if not path:
        return
    folder, _, name = path.rpartition("/")
    data, buffer = props["password"].encode(), io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.mode, entry.mtime, entry.size = 0o400, int(time.time()), len(data)
        tar.addfile(entry, io.BytesIO(data))
    try:
        with runtime(props["container"], ENGINE_TIMEOUT_SECONDS) as postgres:
            postgres.unpack(folder, buffer.getvalue())
    except (WorkloadError, OSError) as problem:
        raise RolePasswordError(
            f"{props['service']} did not take the file of its password: {problem}"
        ) from None


def _ask(props: dict[str, Any], password: str) -> str:
    """Return the answer of the container; an engine under load now and then loses one, and asking again is harmless."""
    line = f"{password}\n{statements(props['password'])}\n".encode()
    said = ""
    for _ in range(TRIES):
        try:
            with runtime(props["container"], ENGINE_TIMEOUT_SECONDS) as postgres:
                answer = postgres.ask(["sh", "-c", _SCRIPT], seconds=COMMAND_SECONDS, line=line)
        except WorkloadError as problem:
            raise RolePasswordError(f"{props['service']}: {problem}") from None
        said = answer.stdout.decode(errors="replace").strip()
        if said:
            break
    return said
