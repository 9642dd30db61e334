"""The Pulumi engine as a build from Go modules, for machines that cannot reach its download site."""

import shutil
import subprocess
from pathlib import Path

from dify_kit.errors import KitError
from dify_kit.setup.commands import done
from dify_kit.setup.go_build import PROXY_HINT, STRIPPED, GoBuild, Part, build_all
from dify_kit.setup.go_toolchain import Toolchain
from dify_kit.workspace.files import CHECKOUT

VERSION = "3.259.0"
SOURCES = CHECKOUT / "tools" / "engine"

PARTS = (
    Part(
        module="cli",
        package="github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
        program="pulumi",
        linker=f"{STRIPPED} -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v{VERSION}",
    ),
    Part(
        module="language",
        package="github.com/pulumi/pulumi/sdk/v3/python/cmd/pulumi-language-python",
        program="pulumi-language-python",
    ),
    Part(module="provider", package=".", program="pulumi-resource-docker"),
)
# Scripts of the SDK module that the engine starts; they are copied next to it, not built.
SCRIPTS = ("python/cmd/pulumi-language-python-exec", "python/dist/pulumi-resource-pulumi-python")
PROGRAMS = tuple(part.program for part in PARTS) + tuple(Path(script).name for script in SCRIPTS)


def engine() -> GoBuild:
    """Return the build of the engine."""
    return GoBuild(
        name="the Pulumi engine",
        folder="engine",
        version=f"pulumi-{VERSION}",
        sources=SOURCES,
        parts=PARTS,
        extra=SCRIPTS,
        finish=_finish,
    )


def engine_key() -> str:
    """Return the name of an engine built from these sources: version, and a digest of all that counts."""
    return engine().key


def built_engine() -> Path:
    """Return where the built engine's programs lie, or would lie."""
    return engine().directory


def is_complete(directory: Path) -> bool:
    """Tell whether a directory holds everything that an engine consists of."""
    return engine().is_complete(directory)


def build_engine() -> Path:
    """Build the engine into the cache, complete or not at all, and return the directory of its programs.

    Takes 7 to 10 minutes on two cores, about one when Go has modules and objects already. Raises KitError.
    """
    build_all([engine()])
    return built_engine()


def _finish(directory: Path, toolchain: Toolchain) -> None:
    _copy_scripts(directory, toolchain)
    _try_out(directory)


def _copy_scripts(directory: Path, toolchain: Toolchain) -> None:
    listed = subprocess.run(
        [str(toolchain.go), "list", "-m", "-f", "{{.Dir}}", "github.com/pulumi/pulumi/sdk/v3"],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=SOURCES / "cli",
        env=toolchain.environment(),
    )
    module = Path(listed.stdout.strip())
    for script in SCRIPTS:
        source = module / script
        if listed.returncode != 0 or not source.is_file():
            raise KitError(
                f"{script} is not in Pulumi's SDK module: {listed.stderr.strip()[-300:]}", PROXY_HINT
            )
        shutil.copyfile(source, directory / source.name)
        (directory / source.name).chmod(0o755)


def _try_out(directory: Path) -> None:
    try:
        reported = subprocess.run(
            [str(directory / "pulumi"), "version"],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError) as problem:
        raise KitError(
            f"the engine that was built does not run: {problem}", "run the same command again"
        ) from None
    if reported != f"v{VERSION}":
        raise KitError(
            f"the engine that was built says it is {reported!r}, not v{VERSION}", "is tools/engine unchanged?"
        )
    done("the built engine runs", reported)
