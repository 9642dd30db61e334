"""The instance under contract: the one of the integration tests' main stack."""

from collections.abc import Iterator

import pytest

from tests.contract.instance import Instance
from tests.integration.stacks import Stack


@pytest.fixture(scope="package")
def instance(stack: Stack) -> Iterator[Instance]:  # pytest's way to use a fixture
    """The api of the main stack."""
    one = Instance(stack)
    made: set[str] = {str(app["id"]) for app in one.console.get("/apps?limit=100").json()["data"]}
    try:
        yield one
    finally:
        for app in one.console.get("/apps?limit=100").json()["data"]:
            if app["id"] not in made:
                one.console.delete(f"/apps/{app['id']}")
