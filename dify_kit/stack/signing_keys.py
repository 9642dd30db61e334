"""The keys that sign access tokens: made once, changed on request, kept in the stack's encrypted settings."""

import json

import typer

from dify_gateway import keys
from dify_gateway.keys import KeyDocument
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import KitError
from dify_kit.stack import settings
from dify_kit.talk import say
from dify_kit.workspace.files import PROJECT, StackFiles
from infra import hints
from infra.settings.oauth_clients import SIGNING_KEYS

SETTING = f"{PROJECT}:{SIGNING_KEYS}"


def rotate_and_tell(stack: str, *, overlap: bool, as_json: bool) -> None:
    """Carry out `dify-kit keys rotate signing`: change the keys of a stack, and say which there are now."""
    files = StackFiles.open(stack)
    with files.lock():
        document = rotate(Pulumi(files=files), overlap=overlap)
    new, *older = [str(key["kid"]) for key in document["keys"]]
    say(f"new tokens are signed by key {new} after the next `up`; {len(older)} older key(s) still verify")
    if as_json:
        typer.echo(json.dumps({"kid": new, "older": older}))


def rotate(pulumi: Pulumi, *, overlap: bool = True) -> KeyDocument:
    """Put a new key in front and return the document; the first one when there is none.

    Without `overlap` no older key verifies any more. Raises KitError, and then nothing was changed.
    """
    files = pulumi.files
    if not files.configured():
        raise KitError(
            f"stack {files.stack} does not exist on this machine (no {files.stored})",
            f"create it with `{hints.kit('init', files.stack)}`",
        )
    document = keys.new_document()
    if SETTING in files.config():
        try:
            known = json.loads(pulumi.run("config", "get", SETTING).stdout)
            document = keys.rotate(known) if overlap else keys.rotate(known, overlap_seconds=0)
        except ValueError as problem:
            # The message about a text that is not JSON may quote a part of it.
            why = f": {problem}" if isinstance(problem, keys.KeyDocumentError) else ""
            raise KitError(
                f"{SETTING} is not a document of signing keys{why}",
                "restore it from a backup, or remove it and run this command again: "
                + hints.kit("unset", SIGNING_KEYS, stack=files.stack),
            ) from None
    _store(pulumi, document)
    return document


def ensure(pulumi: Pulumi) -> None:
    """Make the first key of a stack that has OAuth and was created before there were any."""
    wanted = settings.section(pulumi.files, "oauth").boolean("enabled")
    if wanted and SETTING not in pulumi.files.config():
        _store(pulumi, keys.new_document())
        say(f"made the first signing key of stack {pulumi.files.stack}")


def _store(pulumi: Pulumi, document: KeyDocument) -> None:
    # By stdin: arguments are in the process list.
    pulumi.run("config", "set", "--secret", SETTING, stdin=json.dumps(document))
