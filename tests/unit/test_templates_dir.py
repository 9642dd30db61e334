"""`dify:templatesDir`: every file of the operator's has an effect, or is reported with the nearest place for it."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from infra.jinja import TEMPLATES
from infra.settings.given import Given
from infra.settings.stack import read
from infra.settings.templates_dir import unused

USED: tuple[Mapping[str, str], ...] = (
    {"nginx/http/log.conf.j2": "# ours, replaced"},
    {"nginx/njs/errors.js": "// ours, replaced"},
    {"squid/common.conf.j2": "# ours, replaced"},
    {"nginx/snippets/http/own.conf.j2": "# a snippet"},
    {"nginx/snippets/server/own.conf.j2": "# a snippet"},
    {"nginx/snippets/v1/own.conf.j2": "# a snippet"},
    {"nginx/snippets/llm/own.conf.j2": "# a snippet"},
    {"nginx/servers/own.conf.j2": "# nginx.conf includes all of servers/"},
    {
        "nginx/snippets/v1/own.conf.j2": "include parts/own.conf;",
        "nginx/parts/own.conf.j2": "# included by nginx",
    },
    {
        "nginx/http/log.conf.j2": '{% include "shared/own.j2" %}',
        "shared/own.j2": "# included by Jinja",
    },
    {"nginx/snippets/http/own.conf.j2": "js_import own.js;", "nginx/njs/own.js": "export default {};"},
    {"README.md": "notes", ".git/config": "hidden", "nginx/http/log.conf.j2~": "a copy of an editor"},
)

UNUSED = (
    ("nginx/htpp/log.conf.j2", "nothing includes it", "nginx/http/log.conf.j2"),
    ("nginx/http/log.conf", "is no template", "nginx/http/log.conf.j2"),
    ("ngnix/http/log.conf.j2", "nothing includes it", "nginx/http/log.conf.j2"),
    ("http/log.conf.j2", "nothing includes it", "nginx/http/log.conf.j2"),
    ("nginx/snippets/vl/slow.conf.j2", "nothing includes it", "nginx/snippets/v1/slow.conf.j2"),
    ("nginx/snippets/v1/deep/slow.conf.j2", "nothing includes it", "nginx/snippets/v1/slow.conf.j2"),
    ("nginx/snippets/slow.conf.j2", "nothing includes it", "nginx/snippets/"),
    ("nginx/parts/own.conf.j2", "nothing includes it", "nginx/parts/"),
    ("nginx/njs/own.js", "nothing includes it", "nginx/njs/"),
    ("squid/sandboxes.conf.j2", "nothing includes it", "squid/sandbox.conf.j2"),
    ("redis.conf.j2", "nothing includes it", "data/redis.conf.j2"),
)


def write(directory: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text, encoding="utf-8")
    return directory


@pytest.mark.parametrize("files", USED, ids=lambda one: next(reversed(one)))
def test_files_with_an_effect_are_accepted(tmp_path: Path, files: Mapping[str, str]) -> None:
    assert unused(write(tmp_path, files)) == {}


@pytest.mark.parametrize(("name", "why", "near"), UNUSED)
def test_a_file_that_nothing_includes_is_an_error_with_the_nearest_place(
    tmp_path: Path, name: str, why: str, near: str
) -> None:
    write(tmp_path, {name: "# no effect"})

    problems = read(Given.of({"templatesDir": str(tmp_path)}), "unit").problems

    [line] = [one for one in problems if one.startswith("dify:templatesDir:")]
    assert name in line
    assert why in line
    assert f"did you mean {near}" in line or f" {near}" in line.partition("did you mean")[2]


def test_each_file_is_reported(tmp_path: Path) -> None:
    write(tmp_path, {"a/b.conf.j2": "", "a/c.conf.j2": "", "nginx/http/log.conf.j2": ""})

    assert list(unused(tmp_path)) == ["a/b.conf.j2", "a/c.conf.j2"]


def test_all_of_our_templates_have_an_effect() -> None:
    assert unused(TEMPLATES) == {}
