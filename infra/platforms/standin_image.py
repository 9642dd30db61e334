"""What the stand-in's images are built from: `standin/`, and the release catalogue with the code that validates by it.

The stand-in refuses what Dify refuses, by the same facts and the same code as the kit. Docker takes one
directory as a build context, so the parts are put together in one, named by what is in it.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from infra.catalogue.images import STANDIN
from infra.catalogue.project import ROOT

# Below the checkout, so that the state names it alike wherever the checkout lies. Git ignores it.
CONTEXTS = ROOT / ".build"
CATALOGUE = "infra/catalogue"
# Nothing here imports Pulumi, which the images do not have.
CODE = (
    "infra/__init__.py",
    "infra/catalogue/__init__.py",
    *(
        f"infra/catalogue/{name}.py"
        for name in (
            *("checks", "container_paths", "data_services", "health", "images", "names", "networks", "ports"),
            *("releases", "selection", "service", "services", "variables", "volumes", "yaml_reader"),
        )
    ),
)


def files(root: Path = ROOT) -> dict[str, Path]:
    """Return the files of the build context: their paths in it, and where they come from."""
    own = root / STANDIN
    found = {str(path.relative_to(own)): path for path in own.rglob("*") if _wanted(path)}
    shared = [root / name for name in CODE] + sorted((root / CATALOGUE).glob("*.yaml"))
    return found | {str(path.relative_to(root)): path for path in shared}


def digest_of(files: Mapping[str, Path]) -> str:
    """Return 12 hex digits over the paths and bytes of files."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode() + b"\0")
        digest.update(hashlib.sha256(files[name].read_bytes()).digest())
    return digest.hexdigest()[:12]


def prepared_context(root: Path = ROOT, contexts: Path = CONTEXTS) -> Path:
    """Return the build context, put together first when it is not there. It is complete or absent."""
    parts = files(root)
    target = contexts / f"{STANDIN}-{digest_of(parts)}"
    if target.is_dir():
        return target
    contexts.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".new-", dir=contexts))
    try:
        draft.chmod(0o755)
        for name, source in parts.items():
            place = draft / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)
        try:
            draft.rename(target)
        except OSError:
            # Another run was faster.
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _wanted(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts
