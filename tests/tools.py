"""What the project's own tests run besides the kit: `python -m tests.tools` installs what is missing."""

import shutil
import sys

from dify_kit.errors import KitError
from dify_kit.setup.commands import apt_install, done
from dify_kit.talk import fail

# Programs that the clients in docs/guides/clients.md call. Their JavaScript runs in Playwright's own node.
PROGRAMS = ("jq", "curl")
INSTALL_SECONDS = 300


def main() -> int:
    """Install the missing programs; return the exit code."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    try:
        if missing:
            apt_install(
                missing,
                hint=f"install {', '.join(missing)} by your system's own means",
                seconds=INSTALL_SECONDS,
            )
    except KitError as problem:
        fail(problem)
        return problem.exit_code
    done("test programs", ", ".join(PROGRAMS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
