"""What tests of several files share, besides the main stack."""

from collections.abc import Iterator

import pytest

from tests.integration.containers import readable
from tests.integration.data_servers import DataServers
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


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataServers]:
    """PostgreSQL and Redis outside of any stack, by TLS with a private CA: one of each for a test file."""
    found = DataServers(directory=readable(tmp_path_factory.mktemp("given")))
    try:
        found.start()
        yield found
    finally:
        found.remove()
