"""A real Weaviate outside of a stack: what is refused of it, and the way to it through both proxies, gRPC included."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]  # Pulumi brings it
import httpx
import pytest

from infra.catalogue import ports
from infra.guards import vector_server
from support.certificates import issue
from support.configuration import settings
from tests.integration.containers import readable
from tests.integration.refusals import assert_one
from tests.integration.vector_proxies import VectorProxies
from tests.integration.weaviate import VERSION, Weaviate
from tests.unit.cli.conftest import FakeEngine

# The status SERVING in an answer of gRPC's health protocol.
SERVING = b"\x08\x01"


@pytest.fixture(scope="module")
def weaviate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weaviate]:
    """The server."""
    found = Weaviate(directory=readable(tmp_path_factory.mktemp("given")))
    try:
        found.start()
        yield found
    finally:
        found.remove()


def given(weaviate: Weaviate, key: str = "", **changed: Any) -> Any:
    return settings(
        {"vectorStore": "weaviate", "vectorServer": weaviate.setting | changed},
        {"externalVectorPassword": key or weaviate.key},
    )


def refused(weaviate: Weaviate, key: str = "", **changed: Any) -> list[str]:
    found = given(weaviate, key, **changed)
    return [one.text("unit") for one in vector_server.refusals(found, FakeEngine())]


@pytest.fixture(scope="module")
def proxies(weaviate: Weaviate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorProxies]:
    """The proxies to the server."""
    found = VectorProxies(directory=readable(tmp_path_factory.mktemp("proxies")), settings=given(weaviate))
    try:
        yield found.start()
    finally:
        found.remove()


@pytest.fixture
def api(proxies: VectorProxies, weaviate: Weaviate) -> Iterator[httpx.Client]:
    """A client of the server, through the proxies."""
    headers = {"Authorization": f"Bearer {weaviate.key}"}
    with httpx.Client(base_url=proxies.url, headers=headers, timeout=30) as client:
        yield client


def test_server_that_admits_dify_is_not_refused_and_keeps_no_trace(
    weaviate: Weaviate, api: httpx.Client
) -> None:
    assert refused(weaviate) == []
    assert "DifyKitCheck" not in api.get("/v1/schema").text


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        pytest.param({"port": 1}, ["vectorServer.host", "unreachable"], id="unreachable"),
        pytest.param({"grpcPort": 1}, ["vectorServer.grpcPort", "unreachable"], id="grpc"),
        pytest.param({"serverName": "other.test"}, ["vectorServer.serverName: other.test"], id="name"),
        pytest.param({"tls": "disable", "caFile": "", "serverName": ""}, ["vectorServer.host"], id="plain"),
    ],
)
def test_server_that_cannot_be_used_is_refused(
    weaviate: Weaviate, changed: dict[str, Any], words: list[str]
) -> None:
    found = refused(weaviate, **changed)

    assert_one(found, words, weaviate.key)


def test_port_of_http_is_not_taken_for_grpc(weaviate: Weaviate) -> None:
    (found,) = refused(weaviate, grpcPort=weaviate.port)

    assert "vectorServer.grpcPort" in found


def test_wrong_key_key_without_rights_and_another_authority_are_refused(
    weaviate: Weaviate, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    other.write_text(issue(ca=True, name="another").pem, encoding="ascii")

    assert "dify:externalVectorPassword: " in refused(weaviate, "not-the-key-of-it")[0]
    assert "it may not create a collection" in refused(weaviate, weaviate.reader)[0]
    assert "dify:vectorServer.caFile" in refused(weaviate, caFile=str(other))[0]


def test_vectors_are_stored_and_found_through_the_proxies(api: httpx.Client) -> None:
    assert api.get("/v1/meta").json()["version"] == VERSION
    created = api.post("/v1/schema", json={"class": "Unit", "vectorizer": "none"})
    assert created.status_code == 200, created.text
    try:
        for text, vector in (("one", [1.0, 0.0]), ("two", [0.0, 1.0])):
            stored = api.post(
                "/v1/objects", json={"class": "Unit", "properties": {"text": text}, "vector": vector}
            )
            assert stored.status_code == 200, stored.text
        query = "{Get{Unit(nearVector:{vector:[0.1,1]},limit:1){text}}}"
        found = api.post("/v1/graphql", json={"query": query})
        assert found.json()["data"]["Get"]["Unit"] == [{"text": "two"}]
    finally:
        assert api.delete("/v1/schema/Unit").status_code == 200


def test_grpc_passes_the_proxies(proxies: VectorProxies) -> None:
    with grpc.insecure_channel(f"{proxies.address}:{ports.VECTOR_SERVER_GRPC}") as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")

        assert check(b"", timeout=30) == SERVING
