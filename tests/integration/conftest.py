"""What tests of several files share, besides the main stack."""

from collections.abc import Iterator

import pytest

from tests.integration.keycloak import Keycloak, start_keycloak


@pytest.fixture(scope="session")
def keycloak_starting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keycloak]:
    """A Keycloak that may not be up yet: what takes its own time can be made meanwhile."""
    with start_keycloak(tmp_path_factory.mktemp("keycloak")) as one:
        yield one


@pytest.fixture(scope="session")
def keycloak(keycloak_starting: Keycloak) -> Keycloak:
    """A Keycloak that answers, without realms: each test file makes its own, by `add_realm`."""
    keycloak_starting.wait()
    return keycloak_starting
