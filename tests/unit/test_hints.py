"""Every command that a message names: it is made by `infra.hints`, and the program accepts it as it stands."""

import ast
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer.main

from dify_kit.__main__ import app
from dify_kit.app import COMMANDS
from dify_kit.stack import addresses
from infra import hints
from infra.catalogue.checks import nearest
from infra.catalogue.project import ROOT
from infra.settings.secrets import SHAPES

STACK = "staging"
# What stands for a value that is known only when the message is made.
VALUE = "value"
BUILDERS = ("kit", "make", "pulumi", "prepare", "assign")
# Commands that are about no stack, or take its name as an argument.
WITHOUT_STACK = {
    ("prune",),
    ("setup",),
    ("init",),
    ("forget",),
    ("release",),
    ("images", "load"),
    ("images", "save"),
    ("doctor",),
    ("backup", "verify"),
}
# Modules whose texts may have a command written out; the last one writes the head of a file.
WRITTEN_OUT = ("dify_kit/checks/", "dify_kit/stack/create.py", "dify_kit/releases/importing.py")
_PROGRAM = re.compile("(?:dify-kit|make|pulumi) ")
_COMMAND = re.compile(r"`((?:dify-kit|make|pulumi) [^`]+)`")
# One without back quotes: a command of the program, with its options or a value.
_BARE = re.compile(rf"(?<![`\w-])(dify-kit (?:{'|'.join(COMMANDS)}) (?:[a-z]+ )?(?:--|{VALUE})[^`]*)")


@dataclass(frozen=True, kw_only=True)
class Named:
    """A command line that a message names, and where."""

    place: str
    line: str


def modules() -> list[Path]:
    return [path for package in ("infra", "dify_kit") for path in sorted((ROOT / package).rglob("*.py"))]


def _word(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_word(part) if isinstance(part, ast.Constant) else VALUE for part in node.values)
    return VALUE


def _built(path: Path) -> Iterator[Named]:
    """Yield what the calls of `infra.hints` in a module make; a value that is not written there is a placeholder."""
    text = path.read_text(encoding="utf-8")
    # Each worker collects all modules: what cannot have one is not parsed.
    for node in ast.walk(ast.parse(text)) if "hints." in text else ():
        if not (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "hints"
            and node.func.attr in BUILDERS
            and not isinstance(node.args[0], ast.Starred)
        ):
            continue
        words = [_word(one) for one in node.args if not isinstance(one, ast.Starred)]
        options = {str(one.arg): _word(one.value) for one in node.keywords}
        if "stack" in options:
            options["stack"] = STACK
        if node.func.attr in {"prepare", "make"} and len(words) > (node.func.attr == "make"):
            words[-1] = STACK
        line = getattr(hints, node.func.attr)(*words, **options)
        yield Named(place=f"{path.relative_to(ROOT)}:{node.lineno}", line=line)


def _written(path: Path) -> Iterator[Named]:
    """Yield commands in the texts of a module, f-strings among them, docstrings and option helps aside."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text if _PROGRAM.search(text) else "")
    yield from (Named(place=f"{path.relative_to(ROOT)}:{line}", line=one) for line, one in written_in(tree))


def written_in(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and text of each command that is written out; a value of an f-string is a placeholder."""
    told = {
        id(part)
        for node in ast.walk(tree)
        if (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.keyword) and node.arg == "help")
        for part in ast.walk(node)
    }
    joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    told |= {id(part) for node in joined for part in node.values}
    for node in ast.walk(tree):
        if id(node) in told or not isinstance(node, ast.Constant | ast.JoinedStr):
            continue
        text = _word(node)
        for found in (*_COMMAND.findall(text), *_BARE.findall(text)):
            # `pulumi {verb}` is what was run, not what to run.
            if found != f"pulumi {VALUE}":
                yield node.lineno, found


BUILT = [one for path in modules() for one in _built(path)]
WRITTEN = [one for path in modules() for one in _written(path)]


def parse(line: str, *, only_path: bool = False) -> tuple[tuple[str, ...], dict[str, object]]:
    """Return the path of a command of `dify-kit` and its parameters. Raises click's error for a wrong one.

    `only_path` leaves the parameters out, for a command that is named with --help alone.
    """
    words = shlex.split(line.partition(" < ")[0])
    assert Path(words[0]).name == hints.PROGRAM.name
    command, path, rest = typer.main.get_command(app), [], words[1:]
    while hasattr(command, "commands") and rest and rest[0] in command.commands:
        path.append(rest[0])
        command, rest = command.commands[rest[0]], rest[1:]
    assert path, line
    if only_path:
        assert not rest, line
        return tuple(path), {}
    context = command.make_context(" ".join(path), list(rest), resilient_parsing=False)
    return tuple(path), dict(context.params)


@pytest.mark.parametrize("named", BUILT, ids=lambda one: f"{one.place} {one.line}")
def test_a_command_of_a_message_is_accepted_and_names_its_stack(named: Named) -> None:
    line = named.line
    if line.startswith("make "):
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        words = shlex.split(line)
        target = next(one for one in words[1:] if one != "-C" and not one.startswith(("/", "STACK=")))
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), line
        return
    if line.startswith("eval "):
        line, _, plain = line.removeprefix('eval "$(').partition(')"')
        assert not plain or re.fullmatch(rf"; pulumi [a-z].* --stack {STACK}", plain)
    asks_for_help = line.endswith(" --help")
    path, parameters = parse(line.removesuffix(" --help"), only_path=asks_for_help)
    if not asks_for_help and not any(path[: len(one)] == one for one in WITHOUT_STACK):
        assert parameters["stack"] == STACK, named


@pytest.mark.parametrize("key", SHAPES)
def test_commands_that_make_secrets_are_accepted(key: str) -> None:
    shape = SHAPES[key]
    lines = _COMMAND.findall(shape.fix(key, STACK))
    if shape.command:
        lines.append(hints.kit(*shape.command, stack=STACK))

    assert lines
    for line in lines:
        assert parse(line)[1]["stack"] == STACK


def test_messages_are_looked_through() -> None:
    assert len(BUILT) > 40
    assert {one.line.split()[1] for one in BUILT} >= {"set", "unset", "up", "keys", "client", "release"}


@pytest.mark.parametrize("named", WRITTEN, ids=lambda one: f"{one.place} {one.line}")
def test_a_command_that_is_written_out_is_in_a_module_that_may(named: Named) -> None:
    assert named.place.startswith(WRITTEN_OUT)
    assert VALUE not in named.line, "a command with a value in it is made by infra.hints"


@pytest.mark.parametrize(
    ("code", "commands"),
    [
        ("x = f'do `dify-kit down --stack {stack}` first'", ["dify-kit down --stack value"]),
        ("x = ('`dify-kit up ' f'--stack {stack}`')", ["dify-kit up --stack value"]),
        ("x = f'dify-kit forget {stack}{option} removes it'", ["dify-kit forget valuevalue removes it"]),
        ("x = (f'{a}', f'dify-kit down --stack {stack}')", ["dify-kit down --stack value"]),
        ("x = f'`{hints.kit(name)}` does'", []),
        ("x = f'dify-kit bench failed: {problem}'", []),
        ("def f():\n    'Like `dify-kit up --llm`.'", []),
    ],
)
def test_commands_in_texts_and_f_strings_are_found(code: str, commands: list[str]) -> None:
    assert [found for _, found in written_in(ast.parse(code))] == commands


def test_wrong_commands_are_told() -> None:
    with pytest.raises(Exception, match="No such option: --stak"):
        parse("dify-kit set httpPort --stak dev")
    with pytest.raises(AssertionError):
        parse("dify-kit sett httpPort")


# the program


def test_the_program_is_named_as_the_shell_finds_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(hints.VARIABLE)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert hints.program() == str(hints.PROGRAM)

    monkeypatch.chdir(ROOT)
    assert hints.program() == ".venv/bin/dify-kit"

    (tmp_path / "dify-kit").symlink_to(hints.PROGRAM)
    assert hints.program() == "dify-kit"

    (tmp_path / "dify-kit").unlink()
    (tmp_path / "dify-kit").write_text("#!/bin/sh\n")
    (tmp_path / "dify-kit").chmod(0o755)
    assert hints.program() == ".venv/bin/dify-kit", "another checkout's"


def test_make_works_outside_of_the_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert hints.make("smoke", STACK) == f"make -C {ROOT} smoke STACK={STACK}"

    monkeypatch.chdir(ROOT)
    assert hints.make("smoke", STACK) == f"make smoke STACK={STACK}"


def test_words_are_quoted_for_a_shell() -> None:
    line = hints.assign("cors.v1[0]", "it's *", stack=STACK)

    assert shlex.split(line) == ["dify-kit", "set", "cors.v1[0]", "it's *", "--stack", STACK]
    assert hints.assign("tlsKey", stack=STACK, stdin="my key.pem").endswith("--stack staging < 'my key.pem'")


# names


def test_the_nearest_three_names_are_listed() -> None:
    known = ["httpPort", "httpsPort", "publicUrl", "addressConnections", "celeryWorkers"]

    assert hints.nearest("HTTPport", known).startswith("did you mean httpPort, httpsPort or ")
    assert hints.nearest("x", ["one"]) == "did you mean one?"
    assert hints.nearest("x", []) == "there is none"
    assert len(nearest("zzz", known, 3)) == 3


# the end of `up`

DEPLOYED = {
    "consoleUrl": "https://console.example.com",
    "publicUrl": "https://dify.example.com",
    "serviceApiUrl": "https://api.example.com/v1",
    "adminEmail": "ops@example.com",
    "apps": {"echo-chat": {}},
    "canary": "id",
    "oauth": {"tokenUrl": "https://dify.example.com/oauth/token"},
    "llm": {"url": "https://dify.example.com/llm/v1"},
    "tls": {"ca": ""},
}


def test_all_addresses_that_exist_are_listed_and_no_other() -> None:
    assert [label for label, _ in addresses.rows(DEPLOYED, STACK)] == [
        "console", "service API", "OAuth", "LLM proxy", "sign in as", "password", "first key", "LLM key", "",
    ]  # fmt: skip
    issued = [label for label, _ in addresses.rows(DEPLOYED, STACK, issued=True)]
    assert issued[-2:] == ["password", "first key"]
    plain = {**DEPLOYED, "oauth": None, "llm": None, "canary": None, "apps": {}}
    assert [label for label, _ in addresses.rows(plain, STACK)] == [
        "console", "service API", "sign in as", "password",
    ]  # fmt: skip
    assert addresses.first_request(plain, STACK) == ""


WITH_MODEL = {**DEPLOYED, "apps": {"echo-chat": {}, "llm-chat": {}}}


def test_the_first_request_is_to_the_app_with_a_model_and_names_no_conversation() -> None:
    command = "dify-kit output appKeys.llm-chat --show-secrets --stack staging"
    for outputs in (WITH_MODEL, {**WITH_MODEL, "canary": None}):
        assert addresses.key_command(outputs, STACK) == command
        request = addresses.first_request(outputs, STACK)
        assert f"$({command})" in request
        assert "/v1/chat-messages" in request
    assert "canaryKey" in addresses.first_request(DEPLOYED, STACK)
    assert "/v1/info" in addresses.first_request({**DEPLOYED, "canary": None}, STACK)
    # The title of a conversation is one more request to the default model.
    assert json.loads(addresses.MESSAGE)["auto_generate_name"] is False


@pytest.mark.parametrize(
    "outputs", [DEPLOYED, {**DEPLOYED, "canary": None}, WITH_MODEL], ids=["canary", "app", "model"]
)
def test_commands_of_the_end_are_accepted(outputs: dict[str, object]) -> None:
    lines = [text for _, text in addresses.rows(outputs, STACK) if text.startswith("dify-kit ")]
    assert len(lines) == 3
    for line in lines:
        assert parse(line)[1]["stack"] == STACK


def test_the_first_request_passes_the_key_by_a_pipe(tmp_path: Path) -> None:
    """The line is run by bash, with programs that note how they are called."""
    for name, script in {
        "dify-kit": 'case "$*" in *canaryKey*) echo app-KEY;; *tls.ca*) echo CA;; esac',
        "curl": 'printf "%s\\n" "$@" > "$NOTED"; cat > "$NOTED.in"; '
        'while [ $# -gt 1 ]; do [ "$1" = --cacert ] && cat "$2" > "$NOTED.ca"; shift; done',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    noted = tmp_path / "noted"
    line = addresses.first_request({**DEPLOYED, "tls": {"ca": "CA"}}, STACK)

    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "NOTED": str(noted)}
    subprocess.run(["bash", "-c", line], env=environment, check=True, timeout=120)

    arguments = noted.read_text().splitlines()
    assert "app-KEY" not in noted.read_text()
    assert (tmp_path / "noted.in").read_text() == 'header = "Authorization: Bearer app-KEY"'
    assert (tmp_path / "noted.ca").read_text() == "CA\n"
    assert arguments[arguments.index("--data") + 1] == addresses.MESSAGE
    assert "https://api.example.com/v1/chat-messages" in arguments
