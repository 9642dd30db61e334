"""The path of an upgrade: releases that cannot be skipped, and Weaviate, by a server that refuses jumps."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from dify_kit.errors import KitError
from dify_kit.upgrade.path import Move, Written, moves, passed
from infra.catalogue.images import Image
from infra.catalogue.releases import RELEASES, Release
from infra.services.data import FIRST_WEAVIATE
from infra.services.specs import spec as spec_of
from support.configuration import resolved, settings

LADDER = RELEASES["1.17.1"].weaviate_ladder


def known(**changed: Release) -> Mapping[str, Release]:
    """Return the kit's releases with some of them replaced or added, the newest first."""
    found = {**RELEASES, **{one.version: one for one in changed.values()}}
    return dict(sorted(found.items(), key=lambda item: item[1].number, reverse=True))


def names(found: tuple[Move, ...]) -> list[tuple[str, str]]:
    return [(one.release, one.weaviate) for one in found]


def with_weaviate(release: Release, tag: str, *ladder: str) -> Release:
    images = {**release.images, "weaviate": Image(repository="semitechnologies/weaviate", tag=tag)}
    return replace(release, images=MappingProxyType(images), weaviate_ladder=ladder)


# releases


def test_a_release_is_one_deployment_however_many_are_between() -> None:
    found = moves(RELEASES, Written(release="1.12.1"), "1.17.1", vector_store="pgvector")

    assert names(found) == [("1.17.1", "")]
    assert [one.version for one in passed(RELEASES, "1.12.1", "1.17.1")] == ["1.14.2", "1.17.0", "1.17.1"]
    assert [one.version for one in passed(RELEASES, "1.14.2", "1.17.0")] == ["1.17.0"]


def test_a_release_that_migrates_younger_data_alone_is_reached_through_the_one_that_it_names() -> None:
    demanding = known(
        last=replace(RELEASES["1.17.1"], upgrade_from="1.17.0"),
        before=replace(RELEASES["1.17.0"], upgrade_from="1.14.2"),
    )

    every = moves(demanding, Written(release="1.12.1"), "1.17.1", vector_store="pgvector")
    some = moves(demanding, Written(release="1.14.2"), "1.17.1", vector_store="pgvector")
    one = moves(demanding, Written(release="1.17.0"), "1.17.1", vector_store="pgvector")

    assert names(every) == [("1.14.2", ""), ("1.17.0", ""), ("1.17.1", "")]
    assert names(some) == [("1.17.0", ""), ("1.17.1", "")]
    assert names(one) == [("1.17.1", "")]


def test_a_hop_that_the_catalogue_does_not_have_is_refused() -> None:
    demanding = known(last=replace(RELEASES["1.17.1"], upgrade_from="1.15.0"))

    with pytest.raises(
        KitError, match=r"migrates data of 1\.15\.0 and newer, the data is of 1\.12\.1"
    ) as refused:
        moves(demanding, Written(release="1.12.1"), "1.17.1", vector_store="pgvector")

    assert "nothing was changed" in refused.value.message
    assert "import 1.15.0" in refused.value.hint


# Weaviate


def test_vectors_climb_every_rung_above_their_own_and_end_at_the_releases_version() -> None:
    written = Written(release="1.14.2", weaviate="1.27.0")

    found = moves(RELEASES, written, "1.17.1", vector_store="weaviate")

    assert names(found) == [("1.17.1", rung) for rung in LADDER[:-1]] + [("1.17.1", "")]
    half = moves(RELEASES, replace(written, weaviate="1.33.18"), "1.17.1", vector_store="weaviate")
    assert [one.weaviate for one in half] == ["1.34.20", "1.35.23", "1.36.23", "1.37.15", "1.38.13", ""]
    last = moves(RELEASES, replace(written, weaviate="1.38.13"), "1.17.1", vector_store="weaviate")
    assert names(last) == [("1.17.1", "")]


def test_vectors_of_a_stack_that_wrote_no_version_down_begin_at_the_first() -> None:
    unrecorded = moves(RELEASES, Written(release="1.14.2"), "1.17.1", vector_store="weaviate")

    assert unrecorded == moves(
        RELEASES, Written(release="1.14.2", weaviate=FIRST_WEAVIATE), "1.17.1", vector_store="weaviate"
    )


def test_a_path_over_several_releases_climbs_at_each_what_that_one_needs() -> None:
    middle = with_weaviate(RELEASES["1.17.0"], "1.30.23", *LADDER[:4])
    demanding = known(middle=middle, last=replace(RELEASES["1.17.1"], upgrade_from="1.17.0"))

    found = moves(demanding, Written(release="1.14.2", weaviate="1.27.0"), "1.17.1", vector_store="weaviate")

    first = [("1.17.0", rung) for rung in LADDER[:3]] + [("1.17.0", "")]
    assert names(found) == [*first, *(("1.17.1", rung) for rung in LADDER[4:-1]), ("1.17.1", "")]


def test_a_ladder_with_a_rung_missing_is_refused_with_the_place() -> None:
    holed = with_weaviate(RELEASES["1.17.1"], "1.39.2", *(one for one in LADDER if one != "1.31.22"))

    with pytest.raises(KitError, match=r"no version between 1\.30\.23 and 1\.32\.27") as refused:
        moves(known(last=holed), Written(release="1.14.2"), "1.17.1", vector_store="weaviate")

    assert "weaviate_ladder" in refused.value.hint


def test_vectors_that_are_newer_than_the_releases_weaviate_are_refused() -> None:
    written = Written(release="1.14.2", weaviate="1.39.2")

    with pytest.raises(KitError, match=r"written by Weaviate 1\.39\.2, and Dify 1\.17\.0 runs 1\.27\.0"):
        moves(RELEASES, written, "1.17.0", vector_store="weaviate")


class Server:
    """Stands in for Weaviate: starts on vectors of its own minor release and of the one before, and rewrites them."""

    def __init__(self, volume: Path) -> None:
        self._volume = volume / "schema"
        self.started: list[str] = []

    def start(self, tag: str) -> None:
        minor = int(tag.split(".")[1])
        there = int(self._volume.read_text()) if self._volume.exists() else minor
        if minor - there not in {0, 1}:
            raise AssertionError(f"Weaviate {tag} cannot read vectors of 1.{there}")
        self._volume.write_text(str(minor))
        self.started.append(tag)


def guard(directory: Path, move: Move) -> subprocess.CompletedProcess[str]:
    """Run the job that looks at the data before a deployment, with the settings of a place."""
    plain = {"images": "registry", "vectorStore": "weaviate", "release": move.release}
    found = settings({**plain, **({"weaviateVersion": move.weaviate} if move.weaviate else {})})
    spec = spec_of("init-permissions", found, found.dify)
    assert spec.command
    return subprocess.run(
        ["sh", "-c", spec.command[0].replace("/app_storage", str(directory))],
        env={**resolved(spec.environment), "KIT_UID": str(os.getuid()), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_server_that_refuses_jumps_takes_every_step_of_the_path(tmp_path: Path) -> None:
    server = Server(tmp_path)
    assert guard(tmp_path, Move(release="1.14.2")).returncode == 0
    server.start(FIRST_WEAVIATE)
    marker = tmp_path / ".dify-kit"
    path = moves(RELEASES, Written.read(marker.read_text()), "1.17.1", vector_store="weaviate")

    for move in path:
        passed_guard = guard(tmp_path, move)
        assert passed_guard.returncode == 0, passed_guard.stderr
        server.start(move.weaviate or RELEASES[move.release].images["weaviate"].tag)

    assert server.started == [FIRST_WEAVIATE, *LADDER]
    assert Written.read(marker.read_text()) == Written(release="1.17.1", weaviate="1.39.2")
    assert moves(RELEASES, Written.read(marker.read_text()), "1.17.1", vector_store="weaviate") == (
        Move(release="1.17.1"),
    )


def test_the_server_and_the_guard_refuse_a_path_with_a_step_left_out(tmp_path: Path) -> None:
    server = Server(tmp_path)
    guard(tmp_path, Move(release="1.14.2"))
    server.start(FIRST_WEAVIATE)

    assert guard(tmp_path, Move(release="1.17.1", weaviate="1.29.11")).returncode == 3
    with pytest.raises(AssertionError, match=r"cannot read vectors of 1\.27"):
        server.start("1.29.11")


# the marker


def test_a_marker_says_what_wrote_the_data() -> None:
    text = "release=1014002\nversion=1.14.2\nweaviate=1.27.0\n"

    assert Written.read(text) == Written(release="1.14.2", weaviate="1.27.0")
    assert Written.read("release=1\nversion=1.12.1\n").weaviate == ""


def test_a_version_that_was_not_written_down_is_the_first() -> None:
    unrecorded = Written(release="1.14.2")

    assert unrecorded.like(Written(release="1.14.2", weaviate=FIRST_WEAVIATE))
    assert unrecorded.like(unrecorded)
    assert not unrecorded.like(Written(release="1.14.2", weaviate="1.28.16"))
    assert not unrecorded.like(Written(release="1.17.0"))
    assert not unrecorded.like(None)


@pytest.mark.parametrize("text", ["", "release=1014002\n", "version=\n"])
def test_a_marker_without_a_release_is_an_error(text: str) -> None:
    with pytest.raises(KitError, match="does not say which Dify wrote the data"):
        Written.read(text)
