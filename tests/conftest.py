"""The stack that tests share, and which tests run side by side.

`make integration` runs the tests twice: all that need no browser on several workers, then those with one, alone,
because Chromium gives up its requests (ERR_NETWORK_CHANGED) whenever a network of Docker comes or goes.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from dify_kit.__main__ import register
from tests.integration import stacks
from tests.integration.stacks import Stack

HERE = Path(__file__).parent
DEPLOYING = (HERE / "contract", HERE / "integration")
STACK = pytest.StashKey[Stack]()
SHARED = "the main stack"
# Groups of tests that take minutes, the longest first.
LONGEST = (
    "integration/test_stack.py",
    SHARED,
    "integration/test_stack_tls.py",
    "integration/test_acme.py",
    "integration/test_console_resources.py",
    "integration/test_ready.py",
)

# `dify-kit` imports the module of the command it runs; tests run them all.
register()


def pytest_configure() -> None:
    """Let a run that is asked to end (as by a CI system) clean up as one that is interrupted by hand does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Clean up behind workers: they are killed when the run is interrupted."""
    workers = getattr(session.config.option, "numprocesses", None)
    if workers and not hasattr(session.config, "workerinput"):
        stacks.remove_leftovers()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that deploy, and put the longest first, so that no worker is left alone with them."""
    groups: dict[str, str] = {}
    for item in items:
        if any(folder in item.path.parents for folder in DEPLOYING):
            groups[item.nodeid] = group = _worker_group(item)
            item.add_marker("integration")
            item.add_marker(pytest.mark.xdist_group(group))
    rank = {group: place for place, group in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(groups.get(item.nodeid, ""), len(rank)))


def _shares(item: pytest.Item | None) -> bool:
    """Whether a test uses the main stack, and not one of its own file."""
    own = hasattr(getattr(item, "module", None), "stack")
    return "stack" in getattr(item, "fixturenames", ()) and not own


def _worker_group(item: pytest.Item) -> str:
    """Return the name of what one worker takes together: all that share the main stack, or the tests of a file."""
    return SHARED if _shares(item) else str(item.path.relative_to(HERE))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Remove the main stack after the last test that needs it: idle containers cost the others their time."""
    stack = item.config.stash.get(STACK, None)
    if stack and not _shares(nextitem):
        stack.remove()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The main stack: newest release, local images, an allowed origin on /v1."""
    stack = Stack(home=tmp_path_factory.mktemp("home"))
    request.config.stash[STACK] = stack
    try:
        created = stack.init(**{"cors-origin": "https://app.example.com"})
        assert created.code == 0, created.told
        stack.first = stack.up()
        yield stack
    finally:
        stack.remove()
