"""Vale, the prose linter: `python -m tests.vale` installs it where it is missing, and checks the project's text.

The words are in tools/vale/styles/, the reasons in docs/contributing/STYLE.md. Vale is built once for each version from
the modules that tools/vale/go.sum pins, and kept in the user's cache. Its parsers of source code need a C compiler.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from dify_kit.errors import KitError
from dify_kit.setup.commands import apt_install, cache_directory, run_step
from dify_kit.setup.go_toolchain import find_go
from dify_kit.talk import fail
from dify_kit.workspace.files import CHECKOUT

VERSION = "3.21.0"
MODULE = CHECKOUT / "tools" / "vale"
PACKAGE = "github.com/vale-cli/vale/v3/cmd/vale"
INSTALL_SECONDS, BUILD_SECONDS, CHECK_SECONDS = 600, 1200, 120
# Pages that people write. Results of benches are written by a program.
PAGES = ("*.md", "docs/**/*.md", "*/README.md", "tools/*/README.md", ".github/**/*.md")
# Code whose comments, docstrings and messages follow the rules. A folder is added when it is clean, and stays.
SOURCES = (
    *(
        "gateway/**/*.py",
        "standin/**/*.py",
        "dify_kit/**/*.py",
        "smoke_tests/*.py",
        "smoke_tests/*.js",
        "support/*.py",
    ),
    *("infra/**/*.py", "docsite/*.py", "tools/*.py", "tests/vale.py"),
)


def main(arguments: list[str]) -> int:
    """Check the given files, or all of the project; return the exit code."""
    try:
        return check(arguments or [str(path) for path in texts()])
    except KitError as problem:
        fail(problem)
        return problem.exit_code


def texts() -> list[Path]:
    """Return every file that the linter reads: pages, and the comments and docstrings of sources."""
    return sorted({path for pattern in (*PAGES, *SOURCES) for path in CHECKOUT.glob(pattern)})


def sources() -> list[Path]:
    """Return the Python files whose messages follow the rules as well."""
    return sorted({path for pattern in SOURCES for path in CHECKOUT.glob(pattern) if path.suffix == ".py"})


def check(files: Iterable[str]) -> int:
    """Print what Vale finds, a line for each; return its exit code, 0 when there is nothing. Raises KitError."""
    done = run("--output=line", *files)
    print(done.stdout, end="")  # noqa: T201  # the findings are this program's output
    print(done.stderr, end="", file=sys.stderr)  # noqa: T201
    return done.returncode


def run(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run Vale with the project's rules, on ``text`` as standard input when it is given. Raises KitError."""
    program = vale()
    # It makes directories of its own below these two; the project's rules are all that it reads.
    with tempfile.TemporaryDirectory(prefix="vale-") as own:
        try:
            return subprocess.run(
                [str(program), "--config", str(CHECKOUT / ".vale.ini"), "--no-global", *arguments],
                check=False,
                input=text,
                capture_output=True,
                text=True,
                timeout=CHECK_SECONDS,
                env=os.environ | {"XDG_CONFIG_HOME": own, "XDG_DATA_HOME": own},
            )
        except subprocess.TimeoutExpired:
            raise KitError(
                f"vale: not finished within {CHECK_SECONDS} s", "run the same command again"
            ) from None


def vale() -> Path:
    """Return the program, built into the cache when it is missing. Raises KitError."""
    program = cache_directory() / f"vale-{VERSION}"
    if program.is_file():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    if shutil.which("gcc") is None:
        apt_install(
            ["gcc", "libc6-dev"], hint="install a C compiler with the name gcc", seconds=INSTALL_SECONDS
        )
    toolchain = find_go()
    with tempfile.TemporaryDirectory(prefix=f"{program.name}.", dir=program.parent) as scratch:
        draft = Path(scratch) / "vale"
        flags = ["-trimpath", "-buildvcs=false", "-ldflags", f"-s -w -X main.version={VERSION}"]
        try:
            run_step(
                f"building the prose linter Vale {VERSION}",
                [str(toolchain.go), "build", *flags, "-o", str(draft), PACKAGE],
                hint="is the Go module proxy reachable (GOPROXY)? The same command continues where it stopped",
                seconds=BUILD_SECONDS,
                env=toolchain.environment() | {"CGO_ENABLED": "1", "CC": "gcc"},
                cwd=MODULE,
            )
        finally:
            toolchain.clean()
        # Moved in complete: a build that was stopped leaves nothing, and of two at the same time the later one stays.
        draft.replace(program)
    return program


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
