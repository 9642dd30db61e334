"""The job that looks at a stack's data before anything changes it: its shell, run with a directory of the test's."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from infra.catalogue.releases import RELEASES
from infra.services.specs import spec as spec_of
from support.configuration import resolved, settings

WEAVIATE = {"images": "registry", "vectorStore": "weaviate"}


def run(directory: Path, release: str, oldest: str = "", **plain: str) -> subprocess.CompletedProcess[str]:
    """Run the guard of a release over what lies in the directory; `oldest` is the oldest data that it migrates."""
    found = settings({"release": release, **WEAVIATE, **plain})
    spec = spec_of("init-permissions", found, replace(found.dify, upgrade_from=oldest))
    assert spec.command is not None
    return subprocess.run(
        ["sh", "-c", spec.command[0].replace("/app_storage", str(directory))],
        env={**resolved(spec.environment), "KIT_UID": str(os.getuid()), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def marker(directory: Path) -> dict[str, str]:
    lines = (directory / ".dify-kit").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_a_new_stack_gets_a_marker_with_its_weaviate(tmp_path: Path) -> None:
    done = run(tmp_path, "1.17.1")

    assert done.returncode == 0, done.stderr
    assert marker(tmp_path) == {"release": "1017001", "version": "1.17.1", "weaviate": "1.39.2"}


def test_vectors_that_stand_rungs_below_refuse_the_release_and_name_the_rungs(tmp_path: Path) -> None:
    run(tmp_path, "1.14.2")
    before = marker(tmp_path)

    refused = run(tmp_path, "1.17.1")

    assert refused.returncode == 3
    assert "written by Weaviate 1.27.0" in refused.stderr
    assert "1.28.16 1.29.11 1.30.23" in refused.stderr
    assert "1.27.27" not in refused.stderr
    assert marker(tmp_path) == before


def test_vectors_of_a_stack_that_wrote_no_version_down_count_as_the_first(tmp_path: Path) -> None:
    (tmp_path / ".dify-kit").write_text("release=1014002\nversion=1.14.2\n", encoding="utf-8")

    assert "written by Weaviate 1.27.0" in run(tmp_path, "1.17.1").stderr


def test_the_whole_ladder_can_be_climbed_and_no_rung_left_out(tmp_path: Path) -> None:
    ladder = RELEASES["1.17.1"].weaviate_ladder
    run(tmp_path, "1.14.2")

    for below, rung, above in zip(("", *ladder), ladder, (*ladder[1:], ""), strict=False):
        if above:
            skipped = run(tmp_path, "1.17.1", weaviateVersion=above) if below else None
            assert skipped is None or skipped.returncode == 3, f"{below or 'the first'} to {above}"
        climbed = run(tmp_path, "1.17.1", weaviateVersion=rung)
        assert climbed.returncode == 0, climbed.stderr
        assert marker(tmp_path)["weaviate"] == rung

    assert run(tmp_path, "1.17.1").returncode == 0


def test_an_older_weaviate_over_newer_vectors_is_refused(tmp_path: Path) -> None:
    run(tmp_path, "1.17.1")

    refused = run(tmp_path, "1.17.1", weaviateVersion="1.37.15")

    assert refused.returncode == 3
    assert "set dify:weaviateVersion or dify:release to what it was" in refused.stderr


def test_another_vector_store_is_not_compared(tmp_path: Path) -> None:
    for release in ("1.14.2", "1.17.1"):
        assert run(tmp_path, release, vectorStore="pgvector").returncode == 0
    assert "weaviate" not in marker(tmp_path)


@pytest.mark.parametrize(("newer", "older"), [("1.17.1", "1.14.2"), ("1.14.2", "1.12.1")])
def test_an_older_release_is_refused(tmp_path: Path, newer: str, older: str) -> None:
    run(tmp_path, newer, vectorStore="pgvector")

    refused = run(tmp_path, older, vectorStore="pgvector")

    assert refused.returncode == 3
    assert f"set dify:release to {newer} or newer" in refused.stderr


def test_data_that_is_older_than_what_a_release_migrates_is_refused(tmp_path: Path) -> None:
    run(tmp_path, "1.12.1", vectorStore="pgvector")
    before = marker(tmp_path)

    refused = run(tmp_path, "1.17.1", oldest="1.14.2", vectorStore="pgvector")

    assert refused.returncode == 3
    assert "the data is of Dify 1.12.1, and 1.17.1 migrates that of 1.14.2 and newer" in refused.stderr
    assert "set dify:release to 1.12.1 again" in refused.stderr
    assert marker(tmp_path) == before
    assert run(tmp_path, "1.14.2", vectorStore="pgvector").returncode == 0
    assert run(tmp_path, "1.17.1", oldest="1.14.2", vectorStore="pgvector").returncode == 0
