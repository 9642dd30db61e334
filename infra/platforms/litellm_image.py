"""What LiteLLM's image is built from on machines without an image registry: its Dockerfile and its packages.

The packages are wheels of requirements.lock, by hash, for the Python of the image's Debian. They are unpacked on this
machine, since a build cannot reach a package index behind a private CA, and kept in the user's
cache, keyed by what they are made from.
"""

import fcntl
import importlib.machinery
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pulumi

from infra import hints
from infra.catalogue.project import ROOT

DIRECTORY = ROOT / "containers" / "litellm"
PACKAGES = "packages"
# Of Debian trixie: its Python, and its C library.
PYTHON = "3.13"
LIBC = "manylinux_2_40"
INSTALL_SECONDS = 900
_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


class PackagesError(pulumi.RunError):
    """The packages of the image cannot be fetched. The message contains the fix."""


def prepared_context(digest: str) -> Path:
    """Return the build context named `digest`, filled first when the cache does not have it. Raises PackagesError.

    It is complete or absent: filled beside its place and moved in. The first time about 100 MB are downloaded.
    """
    bootstrap = _bootstrap()
    home: Path = bootstrap.cache_directory() / "litellm"
    target = home / digest
    if target.is_dir():
        return target
    home.mkdir(parents=True, exist_ok=True)
    # Tests and stacks side by side: the second one finds it done.
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_dir():
            return target
        draft = Path(tempfile.mkdtemp(prefix=".new-", dir=home))
        try:
            draft.chmod(0o755)
            shutil.copyfile(DIRECTORY / "Dockerfile", draft / "Dockerfile")
            _install(draft / PACKAGES, bootstrap.find_uv(), bootstrap.uv_environment())
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return target


def _install(target: Path, uv: str | None, environment: Mapping[str, str]) -> None:
    """Unpack the locked wheels into a directory; nothing of them runs here."""
    if uv is None:
        raise PackagesError(
            f"LiteLLM's packages are fetched with uv, which is not installed; run `{hints.make('packages')}`"
        )
    machine = _MACHINES.get(platform.machine().lower())
    if machine is None:
        raise PackagesError(
            f"LiteLLM's image cannot be built on {platform.machine()}; use dify:images registry or mirror, "
            "or dify:llm.engine nginx"
        )
    command = [uv, "pip", "install", "--quiet", "--target", str(target), "--python-version", PYTHON]
    command += ["--python-platform", f"{machine}-{LIBC}", "--only-binary", ":all:", "--no-deps"]
    command += ["--require-hashes", "--requirements", str(DIRECTORY / "requirements.lock")]
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            env={**os.environ, **environment},
        )
    except subprocess.TimeoutExpired:
        raise PackagesError(
            f"LiteLLM's packages did not arrive within {INSTALL_SECONDS} s; is the package index reachable?"
        ) from None
    if done.returncode != 0:
        raise PackagesError(
            f"LiteLLM's packages cannot be fetched: {(done.stderr or done.stdout).strip()[-1000:]}\n"
            "is the package index reachable? Behind a proxy, set HTTPS_PROXY and SSL_CERT_FILE"
        )


def _bootstrap() -> ModuleType:
    """Return tools/bootstrap as a module: it finds uv, the package index and its certificates."""
    loader = importlib.machinery.SourceFileLoader("dify_kit_bootstrap", str(ROOT / "tools" / "bootstrap"))
    module = ModuleType(loader.name)
    module.__file__ = loader.path
    loader.exec_module(module)
    return module
