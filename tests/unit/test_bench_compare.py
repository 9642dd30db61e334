"""bench/compare without an engine: what is rendered, whose turn it is, and how turns become a ratio."""

import json
import subprocess
from pathlib import Path

import pytest

from bench import compare, llm
from dify_kit.errors import KitError
from infra.edge.paths import EDGE_DIRECTORY
from support.certificates import issue

KEY = "sk-upstream-0123456789-0123456789"


def test_turns_are_mirrored_from_pair_to_pair() -> None:
    assert list(compare.turns(3)) == [
        (1, compare.BASE),
        (1, compare.THIS),
        (2, compare.THIS),
        (2, compare.BASE),
        (3, compare.BASE),
        (3, compare.THIS),
    ]


def test_a_ratio_is_that_of_a_pair_and_a_case() -> None:
    # The machine gets slower from pair to pair, which no ratio shows.
    found = [
        compare.Taken(case=case, pair=pair, name=name, cpu=pair * (100.0 if name == compare.BASE else of))
        for case, of in (("small", 90.0), ("long", 150.0))
        for pair, name in compare.turns(5)
    ]

    assert compare.ratios(found, "small") == pytest.approx([0.9] * 5)
    (small, *figures), (long, *others) = compare.table(found).rows
    assert (small, long) == ("small", "long")
    assert figures == pytest.approx([300, 270, 0.9, 0.9, 0.9, 5])
    assert others == pytest.approx([300, 450, 1.5, 1.5, 1.5, 5])


def test_a_tree_renders_the_edge_that_the_bench_measures(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text(issue(ca=True, name="bench CA").pem)

    found = compare.rendered(compare.ROOT, KEY, ca)

    files = {path.removeprefix(f"{EDGE_DIRECTORY}/"): text for path, text in found.proxy.files.items()}
    assert json.loads(files["llm/secrets.json"])["keys"] == {"fast": KEY, "streams": KEY}
    assert files["njs/llm.js"] == (compare.ROOT / "templates/nginx/njs/llm.js").read_text()
    assert found.proxy.request.path == llm.CHAT
    assert found.proxy.request.authorization.startswith("Bearer dkp_")
    assert {llm.UPSTREAM, llm.STREAMS} <= set(found.aliases)


def test_a_tree_that_cannot_be_rendered_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").touch()

    with pytest.raises(KitError, match="cannot be rendered"):
        compare.rendered(tmp_path, KEY, tmp_path / "ca.pem")


def test_a_commits_files_are_there_and_then_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        author = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
        command = ["git", "-C", str(tmp_path), *author, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout

    git("init", "--quiet")
    for text in ("old", "new"):
        (tmp_path / "file").write_text(text)
        git("add", "file")
        git("commit", "--quiet", "--message", text)
    monkeypatch.setattr(compare, "ROOT", tmp_path)

    with compare.tree_of("HEAD~1") as tree:
        assert (tree / "file").read_text() == "old"
    assert not tree.exists()
    assert len(git("worktree", "list").splitlines()) == 1
    with pytest.raises(KitError, match="--base nothing"), compare.tree_of("nothing"):
        pass


def test_a_commit_has_to_be_named() -> None:
    with pytest.raises(KitError, match="--base is empty"):
        compare.run("python -m bench compare", base="", rounds=1, seconds=1)


def test_the_long_body_is_long_and_always_the_same() -> None:
    body = compare.long_chat()

    assert body == compare.long_chat()
    assert len(json.loads(body)["messages"][0]["content"].split()) == compare.LONG_WORDS
    # In memory at the edge, and one string of Lua.
    assert len(body) < 1_000_000
    assert "]]" not in body
