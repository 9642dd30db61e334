"""The way to an external vector store by HTTP: through both proxies, which verify the server and reach no other.

The server has the answers of Qdrant. `test_weaviate.py` has a real store, `test_external_data.py` a real pgvector.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.catalogue import networks, ports
from infra.catalogue.data_services import DATA_EGRESS, DATA_PROXY
from infra.guards import vector_server
from support.certificates import Pair, issue
from support.configuration import settings
from support.ports import free_port
from tests.integration.bridge import bridge
from tests.integration.containers import readable
from tests.integration.store_outside import StoreOutside
from tests.integration.vector_proxies import VectorProxies
from tests.unit.cli.conftest import FakeEngine

NAME, KEY = "qdrant.outside.test", "key-of-this-test"
REQUESTS = 20


@pytest.fixture(scope="module")
def ca() -> Pair:
    """The CA of the server."""
    return issue(ca=True, name="vectors")


@pytest.fixture(scope="module")
def store(ca: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreOutside]:
    """The server, on this machine."""
    address = bridge()
    found = StoreOutside(address=address, port=free_port(address), key=KEY)
    with found.serving(issue([NAME], issuer=ca), tmp_path_factory.mktemp("store")):
        yield found


def given(store: StoreOutside, file: Path, **changed: Any) -> Any:
    server = {"host": store.address, "port": store.port, "serverName": NAME, "caFile": str(file), **changed}
    return settings({"vectorStore": "qdrant", "vectorServer": server}, {"externalVectorPassword": KEY})


@contextmanager
def running(store: StoreOutside, directory: Path, authority: Pair, **changed: Any) -> Iterator[VectorProxies]:
    file = readable(directory) / "ca.pem"
    file.write_text(authority.pem, encoding="ascii")
    found = VectorProxies(directory=directory, settings=given(store, file, **changed))
    try:
        yield found.start()
    finally:
        found.remove()


@pytest.fixture(scope="module")
def proxies(
    store: StoreOutside, ca: Pair, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VectorProxies]:
    """The proxies to the server."""
    with running(store, tmp_path_factory.mktemp("proxies"), ca) as found:
        yield found


def test_request_arrives_with_its_key_and_the_server_s_own_name(
    proxies: VectorProxies, store: StoreOutside
) -> None:
    answer = httpx.get(f"{proxies.url}/collections", headers={"api-key": KEY}, timeout=20)

    assert answer.json()["status"] == "ok"
    last = store.asked[-1]
    assert (last.path, last.host, last.key) == ("/collections", f"{NAME}:{store.port}", KEY)


def test_wrong_key_is_the_server_s_answer(proxies: VectorProxies) -> None:
    assert (
        httpx.get(f"{proxies.url}/collections", headers={"api-key": "another"}, timeout=20).status_code == 401
    )


def test_large_batch_arrives_whole(proxies: VectorProxies, store: StoreOutside) -> None:
    body = b"x" * (32 << 20)

    answer = httpx.put(
        f"{proxies.url}/collections/c/points", content=body, headers={"api-key": KEY}, timeout=60
    )

    assert answer.status_code == 200
    assert store.asked[-1].size == len(body)


def test_requests_share_connections_to_the_server(proxies: VectorProxies, store: StoreOutside) -> None:
    before = len(store.asked)
    with httpx.Client(headers={"api-key": KEY}, timeout=20) as client:
        for _ in range(REQUESTS):
            assert client.get(f"{proxies.url}/collections").status_code == 200

    # A new one for each would be a handshake of TLS for each search. A busy machine may let some of them expire.
    assert len({one.peer for one in store.asked[before:]}) <= REQUESTS // 4


def test_first_proxy_has_no_way_out_and_the_second_answers_to_no_other_port(
    proxies: VectorProxies,
) -> None:
    # The network with the way out: the second proxy listens there, too.
    way_out = proxies.address_of(DATA_EGRESS, networks.DATA_EGRESS)
    refused = proxies.containers[DATA_PROXY].exec_run(
        ["timeout", "10", "bash", "-c", f"exec 3<>/dev/tcp/{way_out}/{ports.VECTOR_SERVER}"]
    )
    assert refused.exit_code != 0
    for port in (5432, 6379, 9202, 19201):
        with pytest.raises(ConnectionRefusedError), socket.create_connection((proxies.address, port), 10):
            pass


@pytest.mark.parametrize("case", ["authority", "name"])
def test_server_that_is_another_one_gets_no_request(
    store: StoreOutside, ca: Pair, tmp_path: Path, case: str
) -> None:
    other = issue(ca=True, name="another") if case == "authority" else ca
    changed = {"serverName": "other.outside.test"} if case == "name" else {}
    with running(store, tmp_path, other, **changed) as found:
        before = len(store.asked)
        answer = httpx.get(f"{found.url}/collections", headers={"api-key": KEY}, timeout=20)

        assert answer.status_code == 502
        assert len(store.asked) == before
        deadline = time.monotonic() + 10
        while "upstream SSL certificate" not in found.logs(DATA_EGRESS):
            assert time.monotonic() < deadline, found.logs(DATA_EGRESS)
            time.sleep(0.2)
        assert KEY not in found.logs(DATA_EGRESS)


def test_check_leaves_nothing_in_the_store(store: StoreOutside, ca: Pair, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(ca.pem, encoding="ascii")
    before = set(store.collections)

    assert vector_server.refusals(given(store, file), FakeEngine()) == []

    assert store.collections == before
    assert {one.method for one in store.asked if "dify-kit-check-" in one.path} == {"PUT", "DELETE"}
