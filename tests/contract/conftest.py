"""The instances under contract: that of the integration tests' main stack, and a small one of each release."""

from collections.abc import Iterator

import pytest

from support.stacks import Stack
from tests.contract.instance import StackInstance, of_stack
from tests.contract.recordings import Speakers


@pytest.fixture(scope="package")
def instance(stack: Stack) -> Iterator[StackInstance]:  # pytest's way to use a fixture
    """The api of the main stack."""
    one = of_stack(stack)
    made: set[str] = {str(app["id"]) for app in one.console.get("/apps?limit=100").json()["data"]}
    try:
        yield one
    finally:
        for app in one.console.get("/apps?limit=100").json()["data"]:
            if app["id"] not in made:
                one.console.delete(f"/apps/{app['id']}")


@pytest.fixture(scope="package")
def speakers() -> Iterator[Speakers]:
    """An instance of each release, with a worker and a sandbox; each is started when it is first asked for."""
    found = Speakers()
    try:
        yield found
    finally:
        found.remove()
