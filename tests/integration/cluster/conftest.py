"""The cluster and the stack that these tests share, and namespaces of their own in it."""

import os
import secrets
from collections.abc import Iterator

import pytest

from support.stacks import RUN
from tests.cluster import lifecycle
from tests.cluster.lifecycle import Cluster
from tests.integration.cluster.provider import Provider
from tests.integration.cluster.stacks import ClusterStack, load_images, remove_namespace

# The name of a cluster that `make cluster` started: these tests use it, and leave it.
VARIABLE = "DIFY_KIT_TEST_CLUSTER"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster of two nodes, with DNS, policies and a storage class."""
    if given := os.environ.get(VARIABLE):
        yield lifecycle.up(given)
        return
    name = f"{RUN}{secrets.token_hex(2)}"
    try:
        yield lifecycle.up(name)
    finally:
        lifecycle.down(name)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own."""
    name = f"test-{secrets.token_hex(3)}"
    cluster.kubectl("create", "namespace", name)
    try:
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def stack(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterStack]:
    """A stack with OAuth, the LLM proxy and TLS, deployed in a namespace of its own."""
    load_images(cluster)
    provider = Provider(cluster=cluster, ca_file=tmp_path_factory.mktemp("provider") / "ca.pem")
    stack = ClusterStack(home=tmp_path_factory.mktemp("home"), cluster=cluster, provider=provider)
    try:
        provider.start()
        stack.prepare()
        stack.first = stack.up()
        yield stack
    finally:
        remove_namespace(cluster, stack.namespace)
        provider.remove()
        stack.remove()
