"""The stack that tests share, and which tests run side by side.

`make integration` runs the tests twice: those with a browser alone, because Chromium gives up its requests
(ERR_NETWORK_CHANGED) whenever a network of Docker comes or goes, then all others on several workers.
"""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from dify_kit.app import COMMANDS, register
from support import stacks
from support.stacks import Stack
from tests.cluster import lifecycle

HERE = Path(__file__).parent
DEPLOYING = (HERE / "contract", HERE / "integration")
# Tests that share the Kubernetes cluster.
ON_CLUSTER = "tests/integration/cluster/"
CLUSTER = "the test cluster"
STACK = pytest.StashKey[Stack]()
SHARED = "the main stack"
# Files whose tests share the main stack.
SHARING = (
    "tests/contract/",
    "tests/integration/browser/",
    "tests/integration/test_bench_command.py",
    "tests/integration/test_live_changes.py",
    "tests/integration/test_two_stacks.py",
)
# Rehearsals of several minutes each: `make drills`. Shorter tests cover each of their steps.
DRILLS = (
    "tests/integration/test_backup.py",
    "tests/integration/test_killed.py",
    "tests/integration/test_rotation.py",
    "tests/integration/test_team.py",
    "tests/integration/test_upgrade.py",
    # It builds the server from its sources first.
    "tests/integration/test_weaviate.py",
)
GATEWAY = "the edge with a gateway"
# Files whose tests share that.
SHARING_GATEWAY = ("tests/integration/edge/test_oauth.py", "tests/integration/edge/test_gate.py")
LAST = "tests/contract/"
# What takes minutes, the longest first.
LONGEST = (
    "tests/integration/test_stack.py",
    "tests/integration/test_upgrade.py",
    CLUSTER,
    SHARED,
    "tests/integration/test_stack_tls.py",
    "tests/integration/test_models.py",
    "tests/integration/test_acme.py",
    "tests/integration/test_console_resources.py",
    "tests/integration/test_oauth_stack.py",
    GATEWAY,
    "tests/integration/edge/test_llm.py",
    "tests/integration/edge/test_litellm.py",
    "tests/integration/test_ready.py",
    "tests/integration/test_live_config.py",
    "tests/integration/test_standin_start.py",
    "tests/integration/test_celery_health.py",
    "tests/integration/edge/test_limits.py",
    "tests/integration/test_images.py",
    "tests/integration/edge/test_starting.py",
)

# `dify-kit` imports the module of the command it runs; tests run them all.
for command in COMMANDS:
    register(command)


def pytest_configure() -> None:
    """Let a run that is asked to end (as by a CI system) clean up as one that is interrupted by hand does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Give each test and its fixtures an event loop: Pulumi wants one, and `asyncio.run` takes it away."""
    try:
        asyncio.get_event_loop()
    except RuntimeError:
        asyncio.set_event_loop(asyncio.new_event_loop())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Clean up behind workers: they are killed when the run is interrupted."""
    workers = getattr(session.config.option, "numprocesses", None)
    if workers and not hasattr(session.config, "workerinput"):
        stacks.remove_leftovers()
        lifecycle.remove_leftovers(stacks.RUN)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that deploy, and put the longest first, so that no worker is left alone with them."""
    for item in items:
        if any(folder in item.path.parents for folder in DEPLOYING):
            item.add_marker("integration")
        if item.nodeid.startswith(ON_CLUSTER):
            item.add_marker("cluster")
        if item.nodeid.startswith(DRILLS):
            item.add_marker("drill")
    rank = {group: place for place, group in enumerate(LONGEST)}
    # Contract tests stop services of the main stack, and the next `up` would mend that in the middle of another test.
    items.sort(
        key=lambda item: (rank.get(_worker_group(item.nodeid), len(rank)), item.nodeid.startswith(LAST))
    )


def _worker_group(nodeid: str) -> str:
    """Return the name of what one worker takes together: all that share a stack or an edge, or the tests of a file."""
    path = nodeid.split("::", 1)[0]
    if path in SHARING_GATEWAY:
        return GATEWAY
    if path.startswith(ON_CLUSTER):
        return CLUSTER
    return SHARED if path.startswith(SHARING) else path


class ByGroup(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Hands out the tests of a group together, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return _worker_group(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByGroup:
    """Let the workers of `-n` share the tests by group."""
    config.option.loadscopereorder = False
    return ByGroup(config, log)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Remove the main stack after the last test that needs it: idle containers cost the others their time."""
    stack = item.config.stash.get(STACK, None)
    if stack and (nextitem is None or _worker_group(nextitem.nodeid) != SHARED):
        stack.remove()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The main stack: newest release, local images, an allowed origin on /v1."""
    stack = Stack(home=tmp_path_factory.mktemp("home"))
    request.config.stash[STACK] = stack
    try:
        created = stack.init(**{"cors-origin": "https://app.example.com"})
        assert created.code == 0, created.output
        stack.first = stack.up()
        yield stack
    finally:
        stack.remove()
