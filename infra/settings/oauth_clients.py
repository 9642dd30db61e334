"""The file with a stack's OAuth clients, next to its settings. Clients are data: a stack may have 10,000 of them.

::

    <directory of the real Pulumi.<stack>.yaml>/clients.<stack>.json    0600

It has the form of the gateway's clients.json, and so holds hashes of secrets and public keys, never a secret.
"""

import hashlib
import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.settings.apps import CANARY
from infra.settings.reader import Section

MAX_CLIENTS = 10_000
# The smoke tests' own tenant and client: made by the program, on the app of the same name.
CANARY_TENANT = CANARY_CLIENT = CANARY
CANARY_SCOPES = ("chat", "conversations")
# The setting with the gateway's document of signing keys.
SIGNING_KEYS = "oauthSigningKeys"
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class ClientsFileError(Exception):
    """The file cannot be used. `reason` and `fix` never hold anything of its content."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(f"{reason}; {fix}")
        self.reason = reason
        self.fix = fix


@dataclass(frozen=True, kw_only=True)
class ClientsFile:
    """What was read: `digest` is the SHA-256 of the file, empty when there is none."""

    path: Path
    text: str = ""
    digest: str = ""
    clients: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def clients_path(stack: str, settings_file: Path, given: str = "") -> Path:
    """Return where the clients are: by `dify:oauth.clientsFile`, else next to the real file of the settings."""
    if given:
        return Path(given).expanduser()
    return settings_file.resolve().parent / f"clients.{stack}.json"


def read_clients_path(oauth: Section, stack: str, settings_file: Path) -> Path:
    """Return where the clients are, by `dify:oauth.clientsFile`; `oauth` is the section above it."""
    given = oauth.text("clientsFile")
    path = clients_path(stack, settings_file, given)
    if not path.is_absolute():
        oauth.problems.add(
            oauth.key("clientsFile"), given, "a relative path", "use the absolute path of a file"
        )
    return path


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    return hashlib.sha256(data).hexdigest()


def read_clients(path: Path) -> ClientsFile:
    """Read the file; one that does not exist has no clients. Raises ClientsFileError.

    Only its form is checked here; the gateway's own code checks each client.
    """
    try:
        if path.stat().st_mode & _WRITABLE_BY_OTHERS:
            raise ClientsFileError("other users can write to it, and add clients", f"run `chmod 600 {path}`")
        data = path.read_bytes()
    except FileNotFoundError:
        return ClientsFile(path=path)
    except OSError as problem:
        raise ClientsFileError(
            f"cannot be read ({problem.strerror})", "give it to the user who deploys"
        ) from None
    fix = "restore it from a backup; the command `client` writes it"
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise ClientsFileError("is not JSON", fix) from None
    clients = document.get("clients") if isinstance(document, dict) else None
    if not isinstance(clients, dict) or not all(isinstance(one, dict) for one in clients.values()):
        raise ClientsFileError('must have an object of clients: {"clients": {"<client id>": {...}}}', fix)
    if len(clients) > MAX_CLIENTS:
        raise ClientsFileError(
            f"has {len(clients)} clients", f"remove some: one gateway has {MAX_CLIENTS} at most"
        )
    return ClientsFile(path=path, text=data.decode(), digest=digest_of(data), clients=clients)
