"""The commands about OAuth: client add, list, rotate, remove."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dify_gateway.scopes import SCOPES
from dify_kit.app import COMMANDS, DEFAULT_STACK, Group, Stack, app
from dify_kit.stack import clients as store
from dify_kit.talk import say
from dify_kit.workspace.files import StackFiles
from infra import hints

client = typer.Typer(cls=Group, name="client", help=COMMANDS["client"], no_args_is_help=True)
app.add_typer(client)

Client = Annotated[str, typer.Argument(metavar="CLIENT", help="The client's id.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


@client.command()
def add(  # noqa: PLR0917  # Typer calls it by name
    client_id: Client,
    tenant: Annotated[str, typer.Option(help="The tenant, one of dify:oauth.tenants.")],
    scope: Annotated[
        list[str],
        typer.Option(help=f"What the client may do: {', '.join(SCOPES)}; repeatable."),
    ],
    token_seconds: Annotated[
        int | None, typer.Option(help="Lifetime of its tokens. [default: oauth.tokenSeconds]")
    ] = None,
    jwks: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Its public key set: it then signs its requests and has no secret."
        ),
    ] = None,
    stack: Stack = DEFAULT_STACK,
    as_json: Json = False,
) -> None:
    """Add a client and print its secret, this once. It can get tokens after the next `up`."""
    files = StackFiles.open(stack)
    with files.lock():
        known = store.load(files)
        entry, secret = store.new_entry(
            known, client_id, tenant=tenant, scopes=scope, token_seconds=token_seconds, jwks=jwks
        )
        store.write(known, {**known.entries, client_id: entry})
    say(f"client {client_id} of tenant {tenant} is in {known.path}; {_next(stack)}")
    _print(client_id, entry, secret, as_json=as_json)


@client.command(name="list")
def list_clients(
    tenant: Annotated[str, typer.Option(help="Only the clients of this tenant.")] = "",
    stack: Stack = DEFAULT_STACK,
    as_json: Json = False,
) -> None:
    """List the clients of the file, one a line, without anything secret."""
    known = store.load(StackFiles.open(stack))
    rows = [
        _facts(name, entry)
        for name, entry in sorted(known.entries.items())
        if not tenant or entry.get("tenant") == tenant
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        how = f"{row['secrets']} secret(s)" if row["secrets"] else row["auth_method"]
        state = ", disabled" if row["disabled"] else ""
        typer.echo(f"{row['client_id']}\t{row['tenant']}\t{' '.join(row['scopes'])}\t{how}{state}")
    if not rows:
        say(f"no clients in {known.path}")


@client.command()
def rotate(
    client_id: Client,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="End the older secret, and make no new one.")
    ] = False,
    stack: Stack = DEFAULT_STACK,
    as_json: Json = False,
) -> None:
    """Give a client a new secret and print it, this once. The old one stays valid until --drop-old."""
    files = StackFiles.open(stack)
    with files.lock():
        known = store.load(files)
        entry, secret = (
            (store.with_newest_secret(known, client_id), "")
            if drop_old
            else store.with_new_secret(known, client_id)
        )
        store.write(known, {**known.entries, client_id: entry})
    state = (
        "its older secret ends"
        if drop_old
        else f"both its secrets are valid until `{store.drop_old(stack, client_id)}`"
    )
    say(f"client {client_id}: {state}; {_next(stack)}")
    _print(client_id, entry, secret, as_json=as_json)


@client.command()
def remove(client_id: Client, stack: Stack = DEFAULT_STACK, as_json: Json = False) -> None:
    """Remove a client: it is refused, and its tokens too, within 5 seconds after the next `up`."""
    files = StackFiles.open(stack)
    with files.lock():
        known = store.load(files)
        entry = known.entry(client_id)
        store.write(known, {name: one for name, one in known.entries.items() if name != client_id})
    say(f"client {client_id} is removed from {known.path}; {_next(stack)}")
    if as_json:
        _print(client_id, entry, "", as_json=True)


def _next(stack: str) -> str:
    return f"`{hints.kit('up', stack=stack)}` lets it go live"


def _facts(client_id: str, entry: dict[str, Any] | Any) -> dict[str, Any]:  # noqa: ANN401  # JSON of the file
    return {
        "client_id": client_id,
        "tenant": entry.get("tenant", ""),
        "scopes": list(entry.get("scopes", ())),
        "auth_method": entry.get("auth_method", "client_secret"),
        "secrets": len(entry.get("secrets", ())),
        "token_seconds": entry.get("token_seconds"),
        "disabled": bool(entry.get("disabled", False)),
    }


def _print(client_id: str, entry: dict[str, Any], secret: str, *, as_json: bool) -> None:
    """Print what the caller needs: the secret alone, so that it can be piped, or everything as JSON."""
    if as_json:
        facts = _facts(client_id, entry) | ({"client_secret": secret} if secret else {})
        typer.echo(json.dumps(facts))
    elif secret:
        if sys.stdout.isatty():
            say("its secret, shown only now:")
        typer.echo(secret)
