"""The path of an upgrade: which releases, and which versions of Weaviate, a stack's data goes through. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from dify_kit.errors import KitError
from infra import hints
from infra.catalogue.releases import Release, version_number
from infra.services.data import FIRST_WEAVIATE

WEAVIATE = "weaviate"


@dataclass(frozen=True, kw_only=True)
class Written:
    """What wrote a stack's data, by the marker in its storage volume; `weaviate` is empty without one."""

    release: str
    weaviate: str = ""

    @classmethod
    def read(cls, marker: str) -> "Written":
        """Return what a marker says. Raises KitError for one that names no release."""
        lines = dict(line.partition("=")[::2] for line in marker.splitlines())
        if not lines.get("version"):
            raise KitError(
                "the marker .dify-kit in the storage volume does not say which Dify wrote the data",
                "the next `up` writes it again",
            )
        return cls(release=lines["version"], weaviate=lines.get("weaviate", ""))

    def like(self, other: "Written | None") -> bool:
        """Tell whether both say the same. A marker without Weaviate's version gets that of before by the next job."""
        return other is not None and (self.release, self.weaviate or FIRST_WEAVIATE) == (
            other.release,
            other.weaviate or FIRST_WEAVIATE,
        )


@dataclass(frozen=True, kw_only=True)
class Move:
    """One deployment of the path: a release, and the version of Weaviate that it runs where that is not its own."""

    release: str
    weaviate: str = ""


def moves(
    known: Mapping[str, Release], written: Written, target: str, *, vector_store: str
) -> tuple[Move, ...]:
    """Return the deployments that bring data to a release, in their order. Raises KitError where none do."""
    found: list[Move] = []
    weaviate = (written.weaviate or FIRST_WEAVIATE) if vector_store == WEAVIATE else ""
    for hop in _hops(known, written.release, target):
        release = known[hop]
        rungs = _rungs(release, weaviate) if weaviate else ()
        found += [Move(release=hop, weaviate=rung) for rung in rungs]
        # The last rung is the release's own version: it becomes that of the release, without another start.
        found.append(Move(release=hop))
        weaviate = release.images[WEAVIATE].tag if weaviate else ""
    return tuple(found)


def passed(known: Mapping[str, Release], old: str, target: str) -> tuple[Release, ...]:
    """Return the releases after `old`, up to `target`: the notes of each of them count."""
    first, last = version_number(old), version_number(target)
    return tuple(known[one] for one in reversed(list(known)) if first < version_number(one) <= last)


def _hops(known: Mapping[str, Release], old: str, target: str) -> tuple[str, ...]:
    """Return the releases that data is migrated by, the target last."""
    found = [target]
    while (need := known[found[0]].upgrade_from) and version_number(need) > version_number(old):
        if need not in known:
            raise KitError(
                f"Dify {found[0]} migrates data of {need} and newer, the data is of {old}, and the catalogue has no "
                f"{need} to go through; nothing was changed",
                f"import {need}: docs/guides/releases.md",
            )
        found.insert(0, need)
    return tuple(found)


def _rungs(release: Release, weaviate: str) -> tuple[str, ...]:
    """Return the versions of Weaviate that vectors go through before the release's own. Raises KitError."""
    own = release.images[WEAVIATE].tag
    if _minor(own) < _minor(weaviate):
        raise KitError(
            f"the vectors were written by Weaviate {weaviate}, and Dify {release.version} runs {own}, which cannot "
            "read them; nothing was changed",
            "choose a release with that Weaviate or a newer one, or import one: docs/guides/releases.md",
        )
    if _minor(own) <= _minor(weaviate) + 1:
        return ()
    rungs = [one for one in release.weaviate_ladder if _number(weaviate) < _number(one) < _number(own)]
    for below, above in pairwise([weaviate, *rungs, own]):
        if _minor(above) > _minor(below) + 1:
            checked = hints.kit("release", "check", str(release.file))
            raise KitError(
                f"Dify {release.version} runs Weaviate {own}, the vectors are of {weaviate}, and its catalogue names "
                f"no version between {below} and {above}; nothing was changed",
                f"complete weaviate_ladder in {release.file}; `{checked}` checks it",
            )
    return tuple(rungs)


def _number(tag: str) -> tuple[int, ...]:
    # A tag may say more than the version, such as its platform.
    return tuple(int(part) for part in re.findall(r"\d+", tag)[:3])


def _minor(tag: str) -> int:
    return _number(tag)[0] * 1000 + _number(tag)[1]
