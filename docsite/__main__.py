"""`python -m docsite OUT` builds the documentation site into a folder; `make docs` calls it."""

import sys
from pathlib import Path

from dify_kit.errors import KitError
from dify_kit.talk import fail, say
from docsite.build import build


def main(arguments: list[str]) -> int:
    """Build the site into the folder that is named; return the exit code."""
    out = Path(*arguments[:1] or ["site"]).absolute()
    try:
        build(out)
    except KitError as problem:
        fail(problem)
        return problem.exit_code
    say(f"documentation site: {out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
