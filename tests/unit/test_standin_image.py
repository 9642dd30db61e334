"""What the stand-in's images are built from: all of it, named by all of it."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from infra.catalogue.images import BASE, STANDIN, local_builds
from infra.catalogue.project import ROOT
from infra.catalogue.releases import RELEASES
from infra.platforms import images, standin_image
from infra.platforms.images import build_digest, build_directory, local_name
from infra.platforms.standin_image import CODE, digest_of, files, prepared_context

ROLES = [role for role, (directory, _) in local_builds().items() if directory == STANDIN]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The parts of the repository that the images are built from, in another place."""
    for name, source in files().items():
        place = tmp_path / "checkout" / (name if name.startswith("infra/") else f"{STANDIN}/{name}")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
    return tmp_path / "checkout"


def test_context_has_the_program_the_catalogue_and_what_reads_it(checkout: Path, tmp_path: Path) -> None:
    context = prepared_context(checkout, tmp_path / "contexts")

    found = {str(path.relative_to(context)) for path in context.rglob("*") if path.is_file()}
    assert {"Dockerfile", "app.py", "dify_standin/start.py", *CODE} <= found
    assert {f"infra/catalogue/{version}.yaml" for version in RELEASES} <= found
    assert not [name for name in found if "__pycache__" in name]
    assert context.stat().st_mode & 0o055 == 0o055


@pytest.mark.parametrize(
    "part",
    ["infra/catalogue/1.17.0.yaml", "infra/catalogue/variables.py", f"{STANDIN}/dify_standin/events.py"],
)
def test_a_change_of_any_part_is_another_image(checkout: Path, tmp_path: Path, part: str) -> None:
    before = prepared_context(checkout, tmp_path / "contexts")
    assert digest_of(files(checkout)) == digest_of(files())
    with (checkout / part).open("a", encoding="utf-8") as file:
        file.write("# changed\n")

    after = prepared_context(checkout, tmp_path / "contexts")

    assert before != after
    assert (after / part.removeprefix(f"{STANDIN}/")).read_text(encoding="utf-8").endswith("# changed\n")


def test_a_release_more_is_another_image(checkout: Path) -> None:
    before = digest_of(files(checkout))
    shutil.copyfile(checkout / "infra/catalogue/1.17.1.yaml", checkout / "infra/catalogue/1.18.0.yaml")

    assert digest_of(files(checkout)) != before


def test_a_context_is_complete_or_absent(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts = tmp_path / "contexts"

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="no space"):
        prepared_context(checkout, contexts)

    assert list(contexts.iterdir()) == []


def test_every_role_is_built_from_it_and_named_by_it() -> None:
    assert len(ROLES) == 6
    for role in ROLES:
        assert build_directory(role).parent == standin_image.CONTEXTS
        assert local_name(role).endswith(f":{build_digest(role)}")
        assert build_directory(role).name.endswith(digest_of(files()))
    assert build_directory("nginx") == ROOT / "containers" / "nginx"


def test_another_base_image_gives_every_image_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {role: local_name(role) for role in local_builds()}

    monkeypatch.setattr(images, "BASE", replace(BASE, digest=f"sha256:{'0' * 64}"))

    assert {role for role in local_builds() if local_name(role) == before[role]} == set()


def test_what_is_shared_needs_nothing_that_the_image_lacks(tmp_path: Path) -> None:
    """PyYAML is the only package beyond Python's own that the shared code may import."""
    context = prepared_context(contexts=tmp_path / "contexts")
    script = (
        "import sys\n"
        "class Closed:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'pulumi', 'pulumi_docker', 'docker', 'dify_kit', 'jinja2', 'httpx'}:\n"
        "            raise ImportError(name + ' is not in the image')\n"
        "sys.meta_path.insert(0, Closed())\n"
        f"sys.path.insert(0, {str(context)!r})\n"
        "import infra.catalogue.releases\n"
        "assert infra.__file__.startswith(sys.path[0]), infra.__file__\n"
        "print(len(infra.catalogue.releases.RELEASES['1.17.1'].variables('api')))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 700


def test_dockerfile_takes_everything_that_is_in_the_context() -> None:
    text = (ROOT / STANDIN / "Dockerfile").read_text(encoding="utf-8")
    copied = {
        source for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for source in line.split()
    }

    top = {name.split("/")[0] for name in files()} - {"Dockerfile"}
    assert {source.rstrip("/") for source in copied} == top
