"""Pulumi's Kubernetes provider: the official plugin where it can be had, else a build, and only where a stack asks."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dify_kit import setup
from dify_kit.errors import KitError
from dify_kit.setup import engine_build, go_build, kubernetes_provider
from dify_kit.setup.kubernetes_provider import (
    PROGRAM,
    ensure_kubernetes_provider,
    kubernetes_plugin,
    provider_build,
)
from infra.platforms.kubernetes import PROVIDER_VERSION
from support.stacks import CHECKOUT

FAKE_GO = """#!/bin/sh
case "$1" in
env) echo go1.26.6 ;;
build)
  echo "$@" >>"$HOME/go.calls"
  while [ "$1" != -o ]; do shift; done
  echo built >"$2"; chmod +x "$2" ;;
esac
"""
# Like `pulumi plugin install`: it downloads into the directory of plugins, or fails.
FAKE_PULUMI = """#!/bin/sh
[ "$1" = plugin ] || exit 0
echo "$@ $PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION" >>"$HOME/pulumi.calls"
[ -z "$PULUMI_BREAKS" ] || { echo "404 for this platform" >&2; exit 1; }
d="$HOME/.pulumi/plugins/resource-$4-$5"
[ ! -d "$d" ] || exit 0
mkdir -p "$d" && echo official >"$d/pulumi-resource-$4"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a machine with a Go, a Pulumi and no provider, that reaches no download site."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("go", FAKE_GO), ("pulumi", FAKE_PULUMI)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    for name in ("XDG_CACHE_HOME", "PULUMI_HOME", "GOFLAGS", "GOROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(go_build, "DISK_NEEDED", 1)
    monkeypatch.setattr(kubernetes_provider, "reachable", lambda: False)
    return tmp_path


def calls(home: Path, program: str) -> list[str]:
    path = home / f"{program}.calls"
    return path.read_text().splitlines() if path.exists() else []


def test_without_the_download_site_it_is_built_once_and_linked(home: Path) -> None:
    ensure_kubernetes_provider()
    ensure_kubernetes_provider()

    assert len(calls(home, "go")) == 1
    assert calls(home, "pulumi") == []
    assert kubernetes_plugin() == home / f".pulumi/plugins/resource-kubernetes-v{PROVIDER_VERSION}/{PROGRAM}"
    assert kubernetes_plugin().readlink() == provider_build().directory / PROGRAM
    assert kubernetes_plugin().read_text() == "built\n"


def test_where_the_site_is_reached_pulumi_installs_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_provider, "reachable", lambda: True)

    ensure_kubernetes_provider()
    ensure_kubernetes_provider()

    # An engine that was built does not download by itself: the variable that says so is taken away.
    assert calls(home, "pulumi") == [f"plugin install resource kubernetes v{PROVIDER_VERSION} "]
    assert calls(home, "go") == []
    assert kubernetes_plugin().read_text() == "official\n"


def test_a_failed_download_falls_back_to_the_build(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kubernetes_provider, "reachable", lambda: True)
    monkeypatch.setenv("PULUMI_BREAKS", "1")

    ensure_kubernetes_provider()

    assert "404 for this platform" in capfd.readouterr().err
    assert kubernetes_plugin().read_text() == "built\n"
    assert len(calls(home, "go")) == 1


def test_a_link_to_a_build_that_is_gone_does_not_stop_the_download(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubernetes_plugin().parent.mkdir(parents=True)
    kubernetes_plugin().symlink_to(home / ".cache/dify-kit/providers/kubernetes-old/bin" / PROGRAM)
    monkeypatch.setattr(kubernetes_provider, "reachable", lambda: True)

    ensure_kubernetes_provider()

    assert kubernetes_plugin().read_text() == "official\n"


def test_a_provider_of_an_older_build_is_replaced_and_the_operators_own_is_not(home: Path) -> None:
    old = home / ".cache/dify-kit/providers/kubernetes-old/bin" / PROGRAM
    old.parent.mkdir(parents=True)
    old.write_text("old")
    kubernetes_plugin().parent.mkdir(parents=True)
    kubernetes_plugin().symlink_to(old)
    ensure_kubernetes_provider()
    assert kubernetes_plugin().read_text() == "built\n"

    kubernetes_plugin().unlink()
    kubernetes_plugin().write_text("the operator's own")
    ensure_kubernetes_provider()
    assert kubernetes_plugin().read_text() == "the operator's own"


@pytest.mark.usefixtures("home")
def test_a_directory_of_plugins_that_cannot_be_written_is_named(home: Path) -> None:
    (home / ".pulumi").write_text("no directory")

    with pytest.raises(KitError, match=r"\.pulumi/plugins/resource-kubernetes") as failed:
        ensure_kubernetes_provider()
    assert "PULUMI_HOME" in failed.value.hint


@pytest.mark.parametrize("kubernetes", [False, True])
def test_only_stacks_on_kubernetes_install_it(monkeypatch: pytest.MonkeyPatch, kubernetes: bool) -> None:
    steps: list[str] = []
    for name in ("ensure_docker", "ensure_pulumi", "ensure_base_images", "ensure_kubernetes_provider"):
        monkeypatch.setattr(setup, name, lambda name=name: steps.append(name))

    setup.run_setup("registry", kubernetes=kubernetes)

    assert steps == [
        "ensure_docker",
        "ensure_pulumi",
        *(["ensure_kubernetes_provider"] if kubernetes else []),
    ]


def test_the_engine_keeps_its_place_when_the_provider_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("cli", "kubernetes"):
        (tmp_path / module).mkdir()
        (tmp_path / module / "go.mod").write_text("module a\n")
    monkeypatch.setattr(engine_build, "SOURCES", tmp_path)
    before = engine_build.engine_key()

    (tmp_path / "kubernetes" / "go.mod").write_text("module b\n")
    assert engine_build.engine_key() == before


def test_versions_agree_with_the_module() -> None:
    module = CHECKOUT / "tools" / "engine" / "kubernetes"
    main = (module / "main.go").read_text()

    assert re.search(r'const version = "([\d.]+)"', main).group(1) == PROVIDER_VERSION  # type: ignore[union-attr]
    assert "pulumi-kubernetes/provider/v4 v4." in (module / "go.mod").read_text()


def test_the_command_line_and_the_program_of_docker_stacks_do_not_load_a_client() -> None:
    script = (
        "import sys\n"
        "import dify_kit.commands.up, dify_kit.setup, infra.platforms.docker\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('kubernetes', 'pulumi_kubernetes')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True, cwd=CHECKOUT
    )

    assert done.stdout.strip() == "[]"


def test_no_package_but_that_of_docker_names_a_plugin() -> None:
    """The language host asks for the plugin of each package that names one, whatever a stack uses."""
    named = {
        str(one.metadata["Name"])
        for one in importlib.metadata.distributions()
        if any(path.name == "pulumi-plugin.json" for path in one.files or ())
    }

    assert named == {"pulumi_docker"}
