"""`dify-kit set`: change settings of a stack."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from dify_kit.app import DEFAULT_STACK, Stack, app
from dify_kit.commands.selected import locked, require_configured
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import UsageError
from dify_kit.stack import changing, setting_path
from dify_kit.stack.changing import Change
from dify_kit.talk import say, warn
from dify_kit.workspace.files import PROJECT, StackFiles
from infra import hints
from infra.settings.given import parsed


@app.command(name="set")
def set_settings(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="KEY [VALUE [KEY VALUE]...]",
            help="Setting and value: httpPort 8090, tls.mode selfsigned, cors.v1[0] https://a.example. "
            "Objects and lists are JSON. Without VALUE it is read from standard input, or prompted for.",
        ),
    ],
    stack: Stack = DEFAULT_STACK,
    secret: Annotated[
        bool, typer.Option("--secret", help="Store the value encrypted. Secrets of Dify always are.")
    ] = False,
    generate: Annotated[
        bool, typer.Option("--generate", help="Generate the value: KEY is a secret that is missing.")
    ] = False,
) -> None:
    """Change settings, all of them or none.

    They are checked first, and the next `up` puts them into effect.

    The value of a secret is never an argument: pass it on standard input, or type it at the prompt.
    """
    with locked(stack) as files:
        require_configured(files)
        changes = _changes(files, words, secret=secret, generate=generate)
        left = changing.apply(Pulumi(files=files), changes)
    for change in changes:
        now = "is set, encrypted" if change.secret else f"is {_shown(change.value)} now"
        say(f"{PROJECT}:{setting_path.text_of(change.path)} {now}")
    tell_rest(stack, left)


def tell_rest(stack: str, left: Sequence[str]) -> None:
    """Say what puts a change into effect, or what else has to be changed first."""
    for line in left:
        warn(line)
    if not left:
        say(f"`{hints.kit('up', stack=stack)}` puts it into effect")


def _changes(files: StackFiles, words: Sequence[str], *, secret: bool, generate: bool) -> list[Change]:
    if len(words) == 1:
        path = setting_path.read(words[0])
        hidden = secret or changing.is_secret(path)
        text = changing.generated(files, path) if generate else _obtained(words[0], hidden=hidden)
        value = _secret(path, text) if hidden else changing.read_value(files, (), path, text)
        return [Change(path=path, value=value, secret=hidden)]
    if len(words) % 2 or generate:
        raise UsageError(
            f"{' '.join(words[::2])}: each KEY needs one VALUE, and --generate a KEY alone",
            f"for example: {hints.assign('httpPort', '8090', stack=files.stack)}",
        )
    changes: list[Change] = []
    for key, text in zip(words[::2], words[1::2], strict=True):
        changes.append(_change(files, changes, key, text, secret=secret))
    return changes


def _secret(path: setting_path.Path, text: str) -> object:
    """Return the value of a secret: text, or the object of keys that is set as a whole."""
    value = parsed(str(path[0]), text) if len(path) == 1 else text
    return value if isinstance(value, dict) else text


def _change(files: StackFiles, before: Sequence[Change], key: str, text: str, *, secret: bool) -> Change:
    path = setting_path.read(key)
    if secret or changing.is_secret(path):
        raise UsageError(
            f"{key} is a secret, and every user of this machine can see arguments; nothing was changed",
            f"pass it on standard input, or type it at the prompt of: {hints.assign(key, stack=files.stack)}",
        )
    return Change(path=path, value=changing.read_value(files, before, path, text))


def _at_a_terminal() -> bool:
    return sys.stdin.isatty()


def _obtained(key: str, *, hidden: bool) -> str:
    if _at_a_terminal():
        return str(typer.prompt(f"Value of {key}", hide_input=hidden, err=True))
    text = sys.stdin.read().strip("\r\n")
    if not text:
        raise UsageError(
            f"{key}: no value; standard input is empty", "give it as an argument, or on standard input"
        )
    return text


def _shown(value: object) -> str:
    return value if isinstance(value, str) else changing.json_text(value)
