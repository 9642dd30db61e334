"""Every fenced block of the documentation is run or covered by a test, or says why not; shell blocks are rehearsed."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from dify_kit.__main__ import app
from dify_kit.workspace.files import CHECKOUT
from infra.catalogue.project import declared
from infra.edge.render import edge_files
from tests.guide_blocks import Block, blocks, blocks_of, named
from tests.pages_read import EVERY, pages_read
from tests.unit.test_render import context_of, parsed

BLOCKS = blocks()
SHELL = [block for block in BLOCKS if block.language == "sh" and block.page != "docs/guides/clients.md"]
REHEARSAL = CHECKOUT / "tests" / "rehearsal.sh"
# What the parser of the command line raises, of whichever kind: Typer exports one of its kinds only.
WrongUse: type[BaseException] = typer.BadParameter.__mro__[1]
MAKEFILE = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
# What blocks start besides dify-kit, make and pulumi: their words are not parsed.
OTHERS = frozenset(
    {
        "age",
        "ssh",
        "systemctl",
        "cat",
        "cp",
        "curl",
        "docker",
        "grep",
        "jq",
        "kubectl",
        "less",
        "git",
        "mkdir",
        "mv",
        "openssl",
        "pytest",
        "pass",
        "python3",
        "rm",
        "sed",
        "skopeo",
        "tar",
        "tr",
    }
)
# Files that a block reads, and programs that it names by their path.
FILES = (
    "secret.txt",
    "password.txt",
    "fullchain.pem",
    "key.pem",
    "dify-production-data.labels",
    "dify-production-data.tar",
)
PROGRAMS = (".venv/bin/pytest",)


def place(value: object) -> str:
    return value.place if isinstance(value, Block) else str(value)


def rehearsed(text: str, folder: Path) -> list[list[str]]:
    """Run a block in a folder where each command is only written down; return the commands."""
    for name in FILES:
        (folder / name).write_text("")
    for name in PROGRAMS:
        program = folder / name
        program.parent.mkdir(parents=True)
        program.write_text(f'#!{shutil.which("bash")}\n. {REHEARSAL}\n"{program.name}" "$@"\n')
        program.chmod(0o755)
    log = folder / "commands"
    log.touch()
    # A directory that a block changes to is not made, and a value in angle brackets is the reader's.
    text = re.sub(r"^(mkdir \S+ && )cd \S+$|^cd - && ", r"\1", text, flags=re.MULTILINE)
    text = text.replace("&& \n", "\n")
    text = re.sub(r"<[a-z0-9]+>", "value", text)
    done = subprocess.run(
        [shutil.which("bash") or "bash", "-eu", "-c", f". {REHEARSAL}\n{text}"],
        cwd=folder,
        env={"PATH": str(folder / "empty"), "HOME": str(folder), "PWD": str(folder), "REHEARSAL": str(log)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [call.split("\x1f") for call in log.read_text().split("\x1e")[:-1]]


def check_kit(words: Sequence[str]) -> None:
    """Parse the words of a `dify-kit` command as the program does. WrongUse where it would refuse them."""
    command: Any = typer.main.get_command(app)
    context = command.context_class(command, info_name="dify-kit")
    rest = list(words)
    while isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
        inner = command.get_command(context, rest.pop(0))
        assert inner is not None, f"dify-kit {' '.join(words)}: no such command"
        command = inner
    command.make_context(command.name, rest, parent=context)


def check_make(words: Sequence[str]) -> None:
    """Find targets and variables in the Makefile."""
    for word in words:
        variable, equals, _ = word.partition("=")
        assert (
            re.search(rf"\$\((?:or \$\(|call given,)?{variable}\)", MAKEFILE)
            if equals
            else re.search(rf"^{re.escape(word)}:", MAKEFILE, re.MULTILINE)
        ), f"make {word}: not in the Makefile"


def check_curl(words: Sequence[str]) -> None:
    """Require that a credential reaches curl by standard input: every user of a machine can read arguments."""
    assert [
        word for word in words if re.match(r"(proxy-)?authorization:|client_secret=", word, re.IGNORECASE)
    ] == []
    assert not {"-u", "--user", "--oauth2-bearer"} & set(words)


def check_pulumi(words: Sequence[str]) -> None:
    """Find the key of `pulumi config set` among the settings."""
    if words[:2] == ["config", "set"]:
        key = next(word for word in words[2:] if not word.startswith("-")).removeprefix("dify:")
        assert re.split(r"[.\[]", key)[0] in declared(), f"pulumi config set {key}: no such setting"


CHECKS = {"curl": check_curl, "dify-kit": check_kit, "make": check_make, "pulumi": check_pulumi}
# Plain Pulumi finds a stack and opens its secrets in such a shell only; `dify-kit set` needs none.
PREPARED = 'eval "$(dify-kit env'


def check(text: str, folder: Path) -> None:
    """Rehearse a block, and check its commands."""
    commands = rehearsed(text, folder)
    assert commands or text.startswith("export ")
    for program, *words in commands:
        prepared = program != "pulumi" or text.startswith(PREPARED)
        assert prepared, f"pulumi {' '.join(words)}: in a shell without {PREPARED}"
        if program in CHECKS:
            CHECKS[program](words)
        else:
            assert program in OTHERS, f"{program} is not among the programs that a page may start"


def test_every_block_is_run_or_covered_by_a_test_or_says_why_not() -> None:
    assert len(BLOCKS) > 80
    marked = {block.place: [block.test, block.covering, block.reason] for block in BLOCKS}
    assert [place for place, marks in marked.items() if len([one for one in marks if one]) != 1] == []


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.test], ids=place)
def test_the_test_that_runs_a_block_reads_its_page(block: Block) -> None:
    assert pages_read(block.test) & {Path(block.page).name, EVERY}, (
        f"{block.place}: {block.test} reads no block of this page: write `covered by:` in place of `run by:`"
    )


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.covering], ids=place)
def test_a_block_that_is_covered_could_not_be_marked_as_run(block: Block) -> None:
    assert Path(block.page).name not in pages_read(block.covering), (
        f"{block.place}: {block.covering} reads this page: write `run by:` in place of `covered by:`"
    )


def test_the_pages_that_a_test_reads_are_followed_through_what_it_uses() -> None:
    by_constant = "tests/unit/test_guide_blocks.py::test_snippets_of_the_edge_guide_are_valid"
    by_import = "tests/unit/test_clients_guide.py::test_every_program_of_the_page_answers"
    none = "tests/unit/cli/test_cli.py::test_one_output_is_plain"

    assert "edge.md" in pages_read(by_constant)
    assert "clients.md" in pages_read(by_import)
    assert "llm-proxy.md" not in pages_read(by_import)
    assert not pages_read(none)


@pytest.mark.parametrize(
    ("page", "comment", "marked"),
    [
        ("a.md", "", False),
        ("a.md", "<!-- run by: tests/unit/x.py::test_x -->\n", True),
        ("a.md", "<!-- covered by: tests/unit/x.py::test_x -->\n", True),
        ("a.md", "<!-- not run: a reason -->\n", True),
        ("a.md", "<!-- something else -->\n", False),
        ("a.md", "<!-- not run: a reason -->\n\nA sentence.\n\n", False),
    ],
)
def test_a_new_block_without_a_mark_is_found(page: str, comment: str, marked: bool) -> None:
    (block,) = blocks_of(page, f"# Page\n\n{comment}```sh\nmake up\n```\n")

    assert bool(block.test or block.covering or block.reason) == marked
    assert block.text == "make up\n"
    assert block.line == 3 + comment.count("\n")


@pytest.mark.parametrize(
    "test", sorted({one for block in BLOCKS for one in (block.test, block.covering) if one})
)
def test_the_tests_of_blocks_exist(test: str) -> None:
    file, _, name = test.partition("::")

    assert re.search(rf"^def {name}\(", (CHECKOUT / file).read_text(encoding="utf-8"), re.MULTILINE), test


@pytest.mark.parametrize("block", SHELL, ids=place)
def test_shell_blocks_start_what_exists(block: Block, tmp_path: Path) -> None:
    check(block.text, tmp_path)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("dify-kit init staging\ndify-kit nothing", "no such command"),
        ("dify-kit init staging --no-such-option", "No such option"),
        ("dify-kit client add bot --tenant acme", "Missing parameter: scope"),
        ("dify-kit init staging --http-port many", "should be a valid integer"),
        ("make nothing", "not in the Makefile"),
        ("make up STAK=dev", "not in the Makefile"),
        ('eval "$(dify-kit env)"\npulumi config set --path cros.v1 x', "no such setting"),
        ("pulumi config set httpPort 8090", "in a shell without"),
        ("curl -H 'Authorization: Bearer app-key' http://localhost:8080/v1/info", "Authorization: Bearer"),
        ("curl -d client_secret=dks_x http://localhost:8080/oauth/token", "client_secret=dks_x"),
        ("curl --user bot:dks_x http://localhost:8080/oauth/token", "--user"),
        ("echo 'unfinished", "unexpected EOF"),
    ],
)
def test_a_rehearsal_finds_mistakes(text: str, error: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, WrongUse), match=error):
        check(text, tmp_path)


def test_snippets_of_the_edge_guide_are_valid(tmp_path: Path) -> None:
    page = "docs/guides/edge.md"
    source = (CHECKOUT / page).read_text(encoding="utf-8")
    found = re.findall(
        r"`(nginx/snippets/[^`]+)`:\n\n(?:<!--[^\n]*-->\n)?```nginx\n(.*?)```", source, re.DOTALL
    )
    for name, text in found:
        (tmp_path / "own" / name).parent.mkdir(parents=True)
        (tmp_path / "own" / name).write_text(text)

    files = edge_files(context_of(), overrides=tmp_path / "own")

    assert len(found) == len([one for one in blocks_of(page, source) if one.language == "nginx"])
    directives = parsed(files, tmp_path)
    for name, text in found:
        (one,) = directives[name.removeprefix("nginx/").removesuffix(".j2")]
        assert f"{one['directive']} {' '.join(one['args'])};\n" == text == named(page, "nginx", text)
