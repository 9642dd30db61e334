"""The Dify release of a stack, the catalogue it is in, and its vector store."""

from pathlib import Path

from infra import hints
from infra.catalogue import release_file, releases, selection
from infra.catalogue.data_services import OUTSIDE_VECTOR_STORES
from infra.catalogue.images import can_build
from infra.catalogue.releases import RELEASES, CatalogueError, Release
from infra.settings.reader import Section
from infra.settings.vector_server import is_outside


def read_catalogue(top: Section) -> Path | None:
    """Read `dify:catalogue`; None without one."""
    given = top.text("catalogue")
    if not given:
        return None
    path = Path(given).expanduser()
    if not path.is_absolute() or not path.is_dir():
        top.problems.add("catalogue", given, "is not a directory", "use the absolute path of a directory")
        return None
    try:
        releases.catalogue(path)
    except CatalogueError as problem:
        checked = hints.kit("release", "list", "--catalogue", str(path))
        top.problems.add("catalogue", given, str(problem), f"`{checked}` reads it again")
        return None
    return path


def read_release(top: Section, catalogue: Path | None) -> tuple[str, Release]:
    """Return version and entry of the release; a file of the operator's own is checked down to each value first."""
    known = releases.catalogue(catalogue)
    # The kit's own come first: what takes the place of a wrong choice can be read.
    version = top.choice("release", tuple(dict.fromkeys([*RELEASES, *known])))
    file = catalogue / f"{version}.yaml" if catalogue else None
    if file and file.is_file():
        wrong = release_file.problems(file)
        for line in wrong:
            again = hints.kit("release", "check", str(file))
            top.problems.add("release", version, line, f"correct {file.name}; `{again}` checks it")
        if wrong:
            return version, RELEASES[next(iter(RELEASES))]
    return version, known[version]


def read_vector_store(top: Section, images: str, *, outside: bool) -> str:
    """Read `dify:vectorStore`. `outside`: a server outside of the stack is set for it."""
    stores = tuple(sorted(selection.vector_stores()))
    store = top.choice("vectorStore", (*stores, *OUTSIDE_VECTOR_STORES))
    if images == "local" and store in stores and not outside and not can_build(store):
        usable = ", ".join(one for one in stores if can_build(one))
        top.problems.add(
            "vectorStore", store, "cannot be built on this machine (dify:images local)", f"use {usable}"
        )
    return store


def read_weaviate_version(top: Section, release: Release) -> str:
    """Return the step of the upgrade that the vector store is at; empty for the release's own version."""
    version = top.text("weaviateVersion")
    if not version:
        return ""
    known = (*RELEASES.values(), release)
    rungs = dict.fromkeys(tag for one in known for tag in one.weaviate_ladder)
    rungs[release.images["weaviate"].tag] = None
    if version not in rungs:
        top.problems.add(
            "weaviateVersion", version, "is not a step of the upgrade", f"use one of {', '.join(rungs)}"
        )
    elif top.raw("vectorStore") != "weaviate":
        top.problems.add("weaviateVersion", version, "another vector store is chosen", "remove it")
    elif is_outside(top):
        top.problems.add(
            "weaviateVersion", version, "has no effect: dify:vectorServer.host names a server", "remove it"
        )
    return version
