"""The instances under contract: that of the integration tests' main stack, and a small one of each release."""

from collections.abc import Iterator

import pytest

from tests.contract.instance import Instance, StackInstance, of_small_dify, of_stack
from tests.contract.recordings import RELEASES
from tests.integration.small_dify import SmallDify
from tests.integration.stacks import Stack


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


@pytest.fixture(scope="package", params=RELEASES)
def speaker(request: pytest.FixtureRequest) -> Iterator[Instance]:
    """An instance of a release of its own, with a worker and a sandbox."""
    release = str(request.param)
    dify = SmallDify(release=release, variables=RELEASES[release])
    try:
        dify.start()
        dify.start_worker()
        yield of_small_dify(dify)
    finally:
        dify.remove()
