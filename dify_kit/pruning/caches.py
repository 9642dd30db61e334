"""What the set-up built or downloaded for other versions of the kit."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from dify_kit.errors import KitError
from dify_kit.pruning.leftover import Kind, Leftover
from dify_kit.setup.commands import cache_directory
from dify_kit.setup.engine_build import VERSION, engine
from dify_kit.setup.kubernetes_provider import provider_build


def leftovers() -> Iterator[Leftover]:
    """Yield the directories of the cache that hold another version of the Pulumi engine or of its providers."""
    kept = {
        engine().directory.parent,
        provider_build().directory.parent,
        cache_directory() / "official" / VERSION,
    }
    for folder in ("engine", "providers", "official"):
        place = cache_directory() / folder
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            if path.is_dir() and not path.is_symlink() and not path.name.startswith(".") and path not in kept:
                yield Leftover(
                    kind=Kind.CACHE,
                    name=str(path),
                    size=_size(path),
                    why="this checkout uses another version",
                    remove=_removing(path),
                )


def _size(path: Path) -> int:
    return sum((Path(folder) / name).lstat().st_size for folder, _, names in os.walk(path) for name in names)


def _removing(path: Path) -> Callable[[], None]:
    def remove() -> None:
        try:
            shutil.rmtree(path)
        except OSError as problem:
            raise KitError(
                f"cannot remove {path}: {problem.strerror}", "check the rights of its directory"
            ) from None

    return remove
