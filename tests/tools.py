"""What the project's own tests run besides the kit: `python -m tests.tools` installs what is missing.

With `integration` that is what the tests that deploy need as well: Keycloak, and Java and Maven for it.
"""

import shutil
import sys
from collections.abc import Mapping

from dify_kit.errors import KitError
from dify_kit.setup.commands import apt_install, done
from dify_kit.talk import fail
from tests import vale
from tests.keycloak_install import VERSION, keycloak_directory

# Program -> Debian's package. The clients in docs/guides/clients.md call these; their JavaScript runs in
# Playwright's own node.
PROGRAMS: Mapping[str, str] = {"jq": "jq", "curl": "curl"}
# What Keycloak is fetched with, and runs on.
JAVA: Mapping[str, str] = {"java": "default-jre-headless", "mvn": "maven"}
INSTALL_SECONDS = 600


def main(arguments: list[str]) -> int:
    """Install the missing programs; return the exit code."""
    wanted = {**PROGRAMS, **(JAVA if "integration" in arguments else {})}
    missing = [package for program, package in wanted.items() if shutil.which(program) is None]
    try:
        if missing:
            apt_install(
                missing,
                hint=f"install {', '.join(missing)} by your system's own means",
                seconds=INSTALL_SECONDS,
            )
        done("test programs", ", ".join(wanted))
        done(f"prose linter Vale {vale.VERSION}", str(vale.vale()))
        if "integration" in arguments:
            done(f"Keycloak {VERSION}", str(keycloak_directory()))
    except KitError as problem:
        fail(problem)
        return problem.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
