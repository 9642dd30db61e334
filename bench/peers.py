"""Caddy and Traefik, built from the Go module proxy into the user's cache, keyed by version."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dify_kit.errors import KitError
from dify_kit.setup.commands import cache_directory, done, run_step
from dify_kit.setup.go_build import describe_build
from dify_kit.setup.go_toolchain import Toolchain, find_go

SOURCES = Path(__file__).parent / "sources"
BUILD_SECONDS = 2400
LOOK_SECONDS = 300
_HINT = "is the Go module proxy reachable (GOPROXY)? Traefik needs Go 1.26 or newer. The same command goes on"
_CADDY = "github.com/caddyserver/caddy/v2"
_TRAEFIK = "github.com/traefik/traefik/v3"
_EXT = "pkg/config/dynamic/ext"
_LEGO = "github.com/go-acme/lego/v5"
_PROVIDERS = "providers/dns"
# The commit of this fork that Traefik pins is not published everywhere; the bench uses neither basic nor digest auth.
_AUTH = (
    "github.com/abbot/go-http-auth=github.com/containous/go-http-auth@v0.4.1-0.20200324110947-a37a7636d23e"
)


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A program to compare with: its module version, and how it is built into a directory."""

    name: str
    version: str
    build: Callable[["Peer", Path, Toolchain], None]


def _environment(toolchain: Toolchain, more: Mapping[str, str]) -> dict[str, str]:
    return toolchain.environment() | dict(more)


def _build_caddy(peer: Peer, draft: Path, toolchain: Toolchain) -> None:
    run_step(
        f"building Caddy {peer.version}",
        [
            str(toolchain.go),
            "install",
            "-v",
            "-trimpath",
            "-ldflags=-s -w",
            f"{_CADDY}/cmd/caddy@{peer.version}",
        ],
        hint=_HINT,
        seconds=BUILD_SECONDS,
        env=_environment(toolchain, {"GOBIN": str(draft)}),
        detail=describe_build,
    )


def _build_traefik(peer: Peer, draft: Path, toolchain: Toolchain) -> None:
    """Build from a copy of Traefik's own module, so that its go.mod and go.sum choose every version.

    `go install` refuses it, because of its replacements. What is replaced here is not on the measured path.
    """
    # Modules are added to go.sum for the fork that is swapped.
    environment = _environment(toolchain, {"GOFLAGS": "-mod=mod"})
    source = draft / "source"
    _copy(_module(toolchain, f"{_TRAEFIK}@{peer.version}"), source)
    extension = source / _EXT
    extension.mkdir()
    (extension / "go.mod").write_text(
        "module github.com/traefik/traefik/dynamic/ext\n\ngo 1.26.0\n", encoding="utf-8"
    )
    shutil.copyfile(SOURCES / "traefik" / "ext.go", extension / "ext.go")
    lego = draft / "lego"
    _copy(_module(toolchain, f"{_LEGO}@{_required(toolchain, source, _LEGO)}"), lego)
    shutil.rmtree(lego / _PROVIDERS)
    (lego / _PROVIDERS).mkdir()
    shutil.copyfile(SOURCES / "traefik" / "dns_providers.go", lego / _PROVIDERS / "dns_providers.go")
    replaced = [f"-replace={_AUTH}", f"-replace={_LEGO}={lego}"]
    _go(toolchain, ["mod", "edit", *replaced], cwd=source, env=environment)
    stamp = f"-X {_TRAEFIK}/pkg/version.Version={peer.version.removeprefix('v')}"
    run_step(
        f"building Traefik {peer.version}",
        [
            *(str(toolchain.go), "build", "-v", "-trimpath", "-buildvcs=false", f"-ldflags=-s -w {stamp}"),
            *("-o", str(draft / peer.name), "./cmd/traefik"),
        ],
        hint=_HINT,
        seconds=BUILD_SECONDS,
        env=environment,
        cwd=source,
        detail=describe_build,
    )


def _copy(module: Path, target: Path) -> None:
    """Copy a module out of Go's cache, where everything is read-only."""
    shutil.copytree(module, target, copy_function=shutil.copyfile)
    for directory in (target, *(path for path in target.rglob("*") if path.is_dir())):
        directory.chmod(0o755)


def _go(toolchain: Toolchain, arguments: list[str], *, cwd: Path, env: Mapping[str, str]) -> str:
    done = subprocess.run(
        [str(toolchain.go), *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=LOOK_SECONDS,
        cwd=cwd,
        env=dict(env),
    )
    if done.returncode != 0:
        raise KitError(
            f"`go {' '.join(arguments)}` failed: {(done.stderr or done.stdout).strip()[-500:]}", _HINT
        )
    return done.stdout


def _module(toolchain: Toolchain, reference: str) -> Path:
    """Download a module (path@version) and return its directory."""
    listed = _go(toolchain, ["mod", "download", "-json", reference], cwd=SOURCES, env=toolchain.environment())
    return Path(json.loads(listed)["Dir"])


def _required(toolchain: Toolchain, source: Path, module: str) -> str:
    """Return the version of a module that a go.mod requires."""
    parsed = json.loads(_go(toolchain, ["mod", "edit", "-json"], cwd=source, env=toolchain.environment()))
    versions = [one["Version"] for one in parsed["Require"] if one["Path"] == module]
    if not versions:
        raise KitError(
            f"{source.name}: go.mod does not require {module}", "has another version other modules?"
        )
    return str(versions[0])


CADDY = Peer(name="caddy", version="v2.11.9", build=_build_caddy)
TRAEFIK = Peer(name="traefik", version="v3.7.13", build=_build_traefik)


def program(peer: Peer) -> Path:
    """Return the peer's program, built first when the cache has none. Raises KitError.

    It is complete or absent: built beside its place and moved in. The first build takes some minutes.
    """
    target = cache_directory() / "bench" / f"{peer.name}-{peer.version}" / peer.name
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parents[1]))
    try:
        peer.build(peer, draft, find_go())
        (draft / peer.name).rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    done(f"{peer.name} {peer.version}", str(target))
    return target
