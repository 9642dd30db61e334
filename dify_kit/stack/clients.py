"""The OAuth clients of a stack: reading and changing their file. The gateway's code checks each client.

A change replaces the complete file, while the stack is locked: a reader gets one version or the other, and no change
is lost.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dify_gateway import client_secrets, config, keys
from dify_gateway.scopes import SCOPES
from dify_kit.errors import KitError
from dify_kit.stack import settings
from dify_kit.workspace.files import StackFiles, write_private
from infra import hints
from infra.settings.oauth_clients import (
    CANARY_CLIENT,
    CANARY_TENANT,
    ClientsFileError,
    read_clients,
    read_clients_path,
)

Entry = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Clients:
    """The clients in a stack's file, by id, and the tenants that the stack's settings have."""

    stack: str
    path: Path
    tenants: Sequence[str]
    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def entry(self, client: str) -> Entry:
        """Return a copy of a client's entry. Raises KitError when there is none."""
        if client not in self.entries:
            raise KitError(f"there is no client {client} in {self.path}", hints.nearest(client, self.entries))
        return dict(self.entries[client])


def load(files: StackFiles) -> Clients:
    """Read a stack's clients. Raises KitError when the stack has no OAuth, or the file cannot be used."""
    if not files.configured():
        raise KitError(
            f"stack {files.stack} does not exist on this machine (no {files.stored})",
            f"create it with `{hints.kit('init', files.stack)}`",
        )
    oauth = settings.section(files, "oauth")
    tenants = tuple(oauth.mapping("tenants"))
    path = read_clients_path(oauth, files.stack, files.config_file)
    settings.require(oauth)
    try:
        found = read_clients(path)
    except ClientsFileError as problem:
        raise KitError(f"{path}: {problem.reason}", problem.fix) from None
    return Clients(stack=files.stack, path=path, tenants=tenants, entries=found.clients)


def write(clients: Clients, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Put other clients into the file: complete or not at all, for this user alone."""
    clients.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(clients.path, json.dumps({"clients": entries}, indent=1, sort_keys=True) + "\n")


def drop_old(stack: str, client: str) -> str:
    """Return the command that ends the older secret of a client."""
    return hints.kit("client", "rotate", client, "--drop-old", stack=stack)


def new_entry(
    clients: Clients,
    client: str,
    *,
    tenant: str,
    scopes: Sequence[str],
    token_seconds: int | None,
    jwks: Path | None,
) -> tuple[Entry, str]:
    """Return the entry of a new client, and its secret; that is empty when the client signs by its own key."""
    if not config.CLIENT_ID.fullmatch(client):
        raise KitError(f"{client!r} is not a client id", f"use {config.CLIENT_ID_RULE}")
    if client in clients.entries:
        raise KitError(
            f"client {client} exists already; nothing was changed",
            f"`{hints.kit('client', 'rotate', client, stack=clients.stack)}` gives it a new secret",
        )
    if client == CANARY_CLIENT or tenant == CANARY_TENANT:
        raise KitError(f"{CANARY_CLIENT} belongs to the smoke tests", "choose another name")
    if tenant not in clients.tenants:
        added = hints.assign(f"oauth.tenants.{tenant}.app", stack=clients.stack)
        raise KitError(
            f"there is no tenant {tenant} in dify:oauth.tenants",
            f"add it first, with the name of its app: `{added}`; {hints.nearest(tenant, clients.tenants)}",
        )
    entry: Entry = {"tenant": tenant, "scopes": _scopes(scopes)}
    if token_seconds is not None:
        if not config.SHORTEST_TOKEN_SECONDS <= token_seconds <= keys.LONGEST_TOKEN_SECONDS:
            raise KitError(
                f"--token-seconds {token_seconds}: out of range",
                f"use {config.SHORTEST_TOKEN_SECONDS} to {keys.LONGEST_TOKEN_SECONDS}",
            )
        entry["token_seconds"] = token_seconds
    if jwks is not None:
        return {**entry, "auth_method": config.PRIVATE_KEY, "jwks": _public_keys(jwks)}, ""
    secret = client_secrets.generate_secret()
    return {**entry, "secrets": [client_secrets.hash_secret(secret)]}, secret


def with_new_secret(clients: Clients, client: str) -> tuple[Entry, str]:
    """Return a client's entry with one more secret, and that secret; the one before stays valid."""
    entry = clients.entry(client)
    _require_secrets(entry, client)
    if len(entry["secrets"]) >= config.MOST_SECRETS:
        raise KitError(
            f"client {client} has two valid secrets already; nothing was changed",
            f"`{drop_old(clients.stack, client)}` ends the older one",
        )
    secret = client_secrets.generate_secret()
    entry["secrets"] = [client_secrets.hash_secret(secret), *entry["secrets"]]
    return entry, secret


def with_newest_secret(clients: Clients, client: str) -> Entry:
    """Return a client's entry with the newest of its secrets alone."""
    entry = clients.entry(client)
    _require_secrets(entry, client)
    if len(entry["secrets"]) == 1:
        raise KitError(
            f"client {client} has one secret only; nothing was changed",
            f"`{hints.kit('client', 'rotate', client, stack=clients.stack)}` gives it a new one first",
        )
    entry["secrets"] = entry["secrets"][:1]
    return entry


def _require_secrets(entry: Mapping[str, Any], client: str) -> None:
    if not isinstance(entry.get("secrets"), list) or not entry["secrets"]:
        raise KitError(
            f"client {client} has no secret: it signs with a key of its own",
            "change its public keys: remove the client, then add it with --jwks",
        )


def _scopes(given: Sequence[str]) -> list[str]:
    """Return scopes, each once, in the order of the table."""
    asked = [scope for each in given for scope in each.replace(",", " ").split()]
    if unknown := [scope for scope in asked if scope not in SCOPES]:
        raise KitError(f"there is no scope {unknown[0]!r}", hints.nearest(unknown[0], SCOPES))
    if not asked:
        raise KitError("a client without a scope can do nothing", f"use some of {', '.join(SCOPES)}")
    return [scope for scope in SCOPES if scope in asked]


def _public_keys(path: Path) -> dict[str, Any]:
    """Return the key set of a file, when each of its keys can be used by the gateway."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise KitError(
            f"--jwks {path}: not a JSON file", 'a public key set is expected: {"keys": [...]}'
        ) from None
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or not 1 <= len(listed) <= config.MOST_CLIENT_KEYS:
        raise KitError(
            f"--jwks {path}: not a key set",
            f'{{"keys": [...]}} with 1 to {config.MOST_CLIENT_KEYS} keys is expected',
        )
    for number, jwk in enumerate(listed):
        if not isinstance(jwk, dict) or {"d", "p", "q", "k"} & set(jwk):
            raise KitError(
                f"--jwks {path}: keys[{number}] is not a public key", "private keys stay with the client"
            )
        key = config.public_key(jwk)
        if key is None or not key.algorithms or not isinstance(jwk.get("kid"), str):
            raise KitError(
                f"--jwks {path}: keys[{number}] cannot be used",
                "use EC keys, or RSA keys of 2048 bits or more, each with a kid of its own",
            )
    if len({jwk["kid"] for jwk in listed}) != len(listed):
        raise KitError(f"--jwks {path}: two keys have the same kid", "give each key its own")
    return {"keys": listed}
