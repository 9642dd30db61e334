"""Copies between registries: which tool, with what arguments, and that a digest that differs is no success."""

import hashlib
import json
import stat
from pathlib import Path

import pytest

from dify_kit.errors import KitError
from dify_kit.images import copying
from dify_kit.images.wanted import Wanted

# Stands in for all three: references are files, and their content is the manifest. It writes down how it is called.
FAKE = """#!/usr/bin/env python3
import hashlib, json, os, pathlib, sys
home = pathlib.Path(os.environ["FAKE_REGISTRY"])
with (home / "calls.jsonl").open("a") as log:
    log.write(json.dumps(sys.argv) + "\\n")
def file(reference):
    return home / reference.removeprefix("docker://").replace("/", "_").replace(":", "+")
words = [word for word in sys.argv[1:] if not word.startswith("--")]
if "copy" in words:
    source, target = words[-2:]
    text = file(source).read_bytes() if file(source).exists() else sys.exit("unauthorized: " + source)
    file(target).write_bytes(b"converted" if (home / "converts").exists() else text)
else:
    text = file(words[-1]).read_bytes() if file(words[-1]).exists() else sys.exit("manifest unknown: " + words[-1])
    if words[0] == "inspect":
        sys.stdout.buffer.write(text)
    else:
        print("sha256:" + hashlib.sha256(text).hexdigest())
"""
MANIFEST = b'{"manifests": []}'
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    programs = tmp_path / "bin"
    programs.mkdir()
    for tool in copying.TOOLS:
        (programs / tool.program).write_text(FAKE)
        (programs / tool.program).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    home = tmp_path / "registry"
    home.mkdir()
    monkeypatch.setenv("FAKE_REGISTRY", str(home))
    (home / f"postgres@{DIGEST}".replace(":", "+")).write_bytes(MANIFEST)
    return home


def pair(digest: str | None = DIGEST) -> copying.Pair:
    source = f"postgres:15-alpine@{DIGEST}"
    one = Wanted(roles=("postgres",), reference=source, name="postgres:15-alpine", origin="docker.io")
    return copying.Pair(
        wanted=one, source=source, target="r.example:5000/x/postgres:15-alpine", digest=digest
    )


def calls(registry: Path) -> list[list[str]]:
    return [json.loads(line)[1:] for line in (registry / "calls.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("tool", copying.TOOLS, ids=lambda tool: tool.program)
@pytest.mark.parametrize("digest", [DIGEST, None])
def test_each_tool_copies_and_the_second_time_nothing_is_copied(
    registry: Path, tool: copying.Tool, digest: str | None
) -> None:
    first, second = copying.copy([pair(digest)], tool), copying.copy([pair(digest)], tool)

    assert [(one.result, one.digest) for one in (*first, *second)] == [
        ("copied", DIGEST),
        ("there already", DIGEST),
    ]
    copied = [call for call in calls(registry) if "copy" in call]
    assert len(copied) == 1
    # No tool reads a tag and a digest in one reference.
    assert copied[0][-2].removeprefix("docker://") == f"postgres@{DIGEST}"


def test_skopeo_copies_every_platform_as_it_is(registry: Path) -> None:
    copying.copy([pair()], copying.find_tool("skopeo"))

    [call] = [call for call in calls(registry) if call[0] == "copy"]
    assert {"--all", "--preserve-digests"} <= set(call)


@pytest.mark.parametrize("tool", copying.TOOLS, ids=lambda tool: tool.program)
def test_a_registry_that_converts_is_an_error(registry: Path, tool: copying.Tool) -> None:
    (registry / "converts").touch()

    with pytest.raises(KitError, match=f"is sha256:.* and .*{DIGEST}"):
        copying.copy([pair()], tool)


def test_an_image_of_another_digest_there_is_replaced(registry: Path) -> None:
    (registry / "r.example+5000_x_postgres+15-alpine").write_bytes(b"old")

    assert copying.copy([pair()], copying.find_tool())[0].result == "copied"


def test_the_tools_own_words_are_told(registry: Path) -> None:
    (registry / f"postgres@{DIGEST}".replace(":", "+")).unlink()

    with pytest.raises(KitError, match=r"cannot be copied to r\.example.*unauthorized") as raised:
        copying.copy([pair()], copying.find_tool("crane"))
    assert "log in with it" in raised.value.hint


def test_the_first_tool_that_is_installed_is_taken(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = registry.parent / "bin"
    monkeypatch.setenv("PATH", str(programs))

    assert copying.find_tool().program == "skopeo"
    (programs / "skopeo").unlink()
    assert copying.find_tool().program == "crane"
    with pytest.raises(KitError, match="skopeo is not installed"):
        copying.find_tool("skopeo")
    for tool in copying.TOOLS:
        (programs / tool.program).unlink(missing_ok=True)
    with pytest.raises(KitError, match="none of skopeo, crane, regctl is installed") as raised:
        copying.find_tool()
    assert "--docker-push" in raised.value.hint
    with pytest.raises(KitError, match="no tool that the kit knows"):
        copying.find_tool("podman")
