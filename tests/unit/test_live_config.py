"""What a live change does without an engine: the archive it sends, and the place a complaint is about."""

import io
import tarfile
from pathlib import Path

import pytest

from infra.edge.paths import RELEASES_DIRECTORY
from infra.resources.live_config import LiveConfigProvider, located
from infra.resources.revision_container import archive


def complaint(path: str, line: int) -> str:
    return f'unknown directive "bogus" in {RELEASES_DIRECTORY}/0123456789ab/{path}:{line}'


def test_line_that_stands_in_the_template_is_named_there(tmp_path: Path) -> None:
    template = tmp_path / "own.conf.j2"
    template.write_text("{# a comment #}\n{% for x in (1, 2) %}\nfine {{ x }};\n{% endfor %}\nbogus on;\n")

    told = located(
        complaint("snippets/own.conf", 3),
        {"snippets/own.conf": "fine 1;\nfine 2;\nbogus on;\n"},
        {"snippets/own.conf": str(template)},
    )

    assert told == f"{template}, line 5: 'bogus on;': unknown directive \"bogus\""


@pytest.mark.parametrize("template", ["{{ word }} on;\n", "bogus on;\nbogus on;\n"])
def test_line_made_of_values_or_found_twice_is_named_as_rendered(tmp_path: Path, template: str) -> None:
    file = tmp_path / "own.conf.j2"
    file.write_text(template)

    told = located(complaint("own.conf", 1), {"own.conf": "bogus on;\n"}, {"own.conf": str(file)})

    assert told.startswith(f"{file}, line 1 of what it renders to: 'bogus on;'")


def test_complaint_without_a_place_is_told_as_it_is() -> None:
    said = 'limit_req "own" uses the "$a" key while previously it used the "$b" key'

    assert located(f"{said}\n", {}, {}) == said


@pytest.mark.parametrize("line", [0, 99])
def test_line_that_the_file_does_not_have_is_no_crash(line: int) -> None:
    assert located(complaint("http/cors.conf", line), {"http/cors.conf": "a;\n"}, {}).startswith(
        "http/cors.conf"
    )


def test_archive_has_every_directory_and_closes_private_files() -> None:
    data = archive("abc", {"nginx.conf": "a", "http/x/y.conf": "ü"}, {"tls/key.pem": "secret"}, 101)

    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {one.name: one for one in tar.getmembers()}
        text = tar.extractfile("releases/abc/http/x/y.conf")
        assert text is not None
        assert text.read().decode() == "ü"
    assert set(found) == {
        "releases",
        "releases/abc",
        "releases/abc/http",
        "releases/abc/http/x",
        "releases/abc/http/x/y.conf",
        "releases/abc/nginx.conf",
        "releases/abc/tls",
        "releases/abc/tls/key.pem",
    }
    key = found["releases/abc/tls/key.pem"]
    assert (key.mode, key.uid) == (0o400, 101)
    assert all(one.uid == 0 for name, one in found.items() if name != key.name)
    assert list(found).index("releases/abc/http") < list(found).index("releases/abc/http/x/y.conf")


@pytest.mark.parametrize(
    ("old", "new", "changes", "replaces"),
    [
        ({"container": "a", "revision": "1"}, {"container": "a", "revision": "1"}, False, []),
        ({"container": "a", "revision": "1"}, {"container": "a", "revision": "2"}, True, []),
        ({"container": "a", "revision": "1"}, {"container": "b", "revision": "1"}, True, ["container"]),
    ],
)
def test_diff_goes_by_revision_and_container(
    old: dict[str, str], new: dict[str, str], changes: bool, replaces: list[str]
) -> None:
    result = LiveConfigProvider().diff("id", old, new)

    assert (result.changes, result.replaces) == (changes, replaces)
