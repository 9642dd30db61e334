"""An external vector store (`dify:vectorServer`): settings, services, variables, files and the proxies of a stack."""

from pathlib import Path
from typing import Any

import crossplane
import pulumi
import pytest

from infra.catalogue.container_paths import STREAM_PROXY_CONFIG, VECTOR_CA_FILE
from infra.catalogue.releases import RELEASES
from infra.catalogue.service import Tier
from infra.guards import volumes
from infra.platforms import image_needs
from infra.services.environment import environment
from infra.services.external_data import stream_proxy_files
from infra.services.specs import spec, specs, tier_volumes
from infra.settings.roots import public_roots
from infra.settings.stack import Settings
from infra.settings.vector_server import KINDS
from support.certificates import issue
from support.configuration import resolved, settings
from tests.unit.cli.conftest import FakeEngine

PASSWORD = "p/s:w@rd?1"  # of this test
SECRETS = {"externalVectorPassword": PASSWORD, "externalDatabasePassword": PASSWORD}
API_IMAGE = ("api", "api-websocket", "worker", "worker-beat", "migration")
HTTP_STORES = [name for name, kind in KINDS.items() if not kind.libpq]


def outside(store: str, *, server: dict[str, Any] | None = None, **plain: Any) -> Settings:
    user = {"user": "dify"} if KINDS[store].user else {}
    given = {"host": "vectors.example.com", **user, **(server or {})}
    return settings(
        {"vectorStore": store, "vectorServer": given, **plain}, SECRETS | plain.pop("secrets", {})
    )


def services(found: Settings) -> set[str]:
    return {one.name for tier in Tier for one in specs(tier, found, found.dify)}


def variables(found: Settings, service: str = "api") -> dict[str, str]:
    return resolved(environment(service, found, found.dify))


def blocks(found: Settings, service: str, tmp_path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the servers and upstreams of a proxy's configuration, by their kind and context."""
    file = tmp_path / f"{service}.conf"
    file.write_text(stream_proxy_files(service, found)[STREAM_PROXY_CONFIG], encoding="utf-8")
    payload = crossplane.parse(str(file), single=True, check_ctx=False, check_args=False)
    assert payload["status"] == "ok", payload["errors"]
    return {
        f"{context['directive']} {kind}": [
            {"args": one["args"], **{line["directive"]: line for line in one["block"]}}
            for one in context["block"]
            if one["directive"] == kind
        ]
        for context in payload["config"][0]["parsed"]
        if context["directive"] in {"stream", "http"}
        for kind in ("server", "upstream")
    }


def test_every_store_of_the_setting_has_a_kind_and_variables_of_each_release() -> None:
    for release in RELEASES.values():
        for store in KINDS:
            given = variables(outside(store, release=release.version, images="registry"))
            assert given["VECTOR_STORE"] == store
            of_store = {name for name in given if name.startswith((f"{store.upper()}_", "PGVECTOR_"))}
            assert of_store
            assert of_store <= release.variables("api").keys()


@pytest.mark.parametrize("store", ["weaviate", "qdrant", "pgvector"])
def test_own_store_and_its_volume_are_replaced_by_the_proxies(store: str) -> None:
    own = settings({"vectorStore": store, "images": "registry"})
    found = outside(store, images="registry")

    assert services(own) - services(found) == {store}
    assert services(found) - services(own) == {"data-proxy", "data-egress"}
    assert "vector" in tier_volumes(Tier.DATA, own, own.dify)
    assert "vector" not in tier_volumes(Tier.DATA, found, found.dify)
    needed = image_needs.roles(image_needs.parts_of(found), found.dify)
    assert set(image_needs.roles(image_needs.parts_of(own), own.dify)) - set(needed) == {store}


@pytest.mark.parametrize("store", KINDS)
def test_a_store_outside_needs_no_image_that_is_built_here(store: str) -> None:
    assert outside(store, images="local").own_vector_store == ""


EXPECTED = {
    "weaviate": {
        "WEAVIATE_ENDPOINT": "http://data-proxy:9201",
        "WEAVIATE_GRPC_ENDPOINT": "grpc://data-proxy:9202",
        "WEAVIATE_API_KEY": PASSWORD,
    },
    "qdrant": {"QDRANT_URL": "http://data-proxy:9201", "QDRANT_API_KEY": PASSWORD},
    "pgvector": {
        "PGVECTOR_HOST": "vectors.example.com",
        "PGVECTOR_PORT": "9201",
        "PGVECTOR_USER": "dify",
        "PGVECTOR_PASSWORD": PASSWORD,
        "PGVECTOR_DATABASE": "dify",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": VECTOR_CA_FILE,
        "DB_EXTRAS": "sslmode=disable",
    },
    "milvus": {
        "MILVUS_URI": "http://data-proxy:9201",
        "MILVUS_USER": "dify",
        "MILVUS_PASSWORD": PASSWORD,
        "MILVUS_DATABASE": "default",
    },
    "opensearch": {
        "OPENSEARCH_HOST": "data-proxy",
        "OPENSEARCH_PORT": "9201",
        "OPENSEARCH_SECURE": "false",
        "OPENSEARCH_USER": "dify",
        "OPENSEARCH_PASSWORD": PASSWORD,
    },
    "elasticsearch": {
        "ELASTICSEARCH_HOST": "http://data-proxy",
        "ELASTICSEARCH_PORT": "9201",
        "ELASTICSEARCH_USERNAME": "dify",
        "ELASTICSEARCH_PASSWORD": PASSWORD,
        "ELASTICSEARCH_USE_CLOUD": "false",
    },
}


@pytest.mark.parametrize("store", KINDS)
def test_services_reach_the_store_at_the_proxy(store: str) -> None:
    found = outside(store)

    for service in API_IMAGE:
        given = variables(found, service)
        assert EXPECTED[store].items() <= given.items()
    others = set(EXPECTED) - {store}
    assert not {name for name in variables(found) for other in others if name.startswith(f"{other.upper()}_")}


@pytest.mark.parametrize("tls", ["require", "disable"])
def test_libpq_gets_the_mode_of_tls(tls: str) -> None:
    given = variables(outside("pgvector", server={"tls": tls}))

    assert (given["PGSSLMODE"], given["PGVECTOR_HOST"]) == (tls, "data-proxy")
    assert "PGSSLROOTCERT" not in given


def test_an_external_database_beside_pgvector_keeps_its_own_tls() -> None:
    found = outside(
        "pgvector",
        database={"host": "db.example.com", "tls": "verify-ca"},
    )

    assert variables(found)["DB_EXTRAS"].startswith("sslmode=verify-ca&sslrootcert=")
    assert variables(found)["PGSSLMODE"] == "verify-full"


def test_tcp_alone_passes_to_pgvector_next_to_the_database(tmp_path: Path) -> None:
    found = outside(
        "pgvector",
        server={"port": 6000},
        database={"host": "vectors.example.com"},
    )
    passed = {
        one["listen"]["args"][0]: one["set"]["args"][1]
        for one in blocks(found, "data-egress", tmp_path)["stream server"]
    }

    assert passed == {"5432": "vectors.example.com:5432", "9201": "vectors.example.com:6000"}
    assert spec("data-proxy", found, found.dify).aliases == {"data": ("vectors.example.com",)}


@pytest.mark.parametrize("store", HTTP_STORES)
def test_first_proxy_passes_tcp_to_the_second_and_nothing_else(store: str, tmp_path: Path) -> None:
    found = blocks(outside(store), "data-proxy", tmp_path)
    passed = {one["listen"]["args"][0]: one["set"]["args"][1] for one in found["stream server"]}

    assert passed == {
        "9201": "data-egress:9201",
        **({"9202": "data-egress:9202"} if store == "weaviate" else {}),
    }
    assert [one["listen"]["args"] for one in found["http server"]] == [["127.0.0.1:8081"]]


@pytest.mark.parametrize("store", HTTP_STORES)
def test_second_proxy_verifies_the_server_and_asks_it_by_its_name(store: str, tmp_path: Path) -> None:
    found = outside(store, server={"serverName": "cert.example.com", "port": 7000})
    served = blocks(found, "data-egress", tmp_path)
    (main,) = (one for one in served["http server"] if one["listen"]["args"] == ["9201"])
    kind, scheme = ("grpc", "grpcs") if store == "milvus" else ("proxy", "https")

    assert main[f"{kind}_ssl_verify"]["args"] == ["on"]
    assert main[f"{kind}_ssl_name"]["args"] == ["cert.example.com"]
    assert main[f"{kind}_ssl_trusted_certificate"]["args"] == [VECTOR_CA_FILE]
    assert main[f"{kind}_set_header" if kind == "grpc" else "location"]
    (location,) = (main["location"]["block"],)
    assert location == [{**location[0], "directive": f"{kind}_pass", "args": [f"{scheme}://to_9201"]}]
    (way,) = (one for one in served["stream server"] if one["listen"]["args"] == ["127.0.0.1:19201"])
    assert way["set"]["args"][1] == "vectors.example.com:7000"
    text = stream_proxy_files("data-egress", found)[STREAM_PROXY_CONFIG]
    assert [f"{kind}_set_header", "Host", "cert.example.com:7000;"] in [
        line.split() for line in text.splitlines()
    ]


def test_usual_port_is_not_part_of_the_name_that_a_server_is_asked_by() -> None:
    found = outside("weaviate", server={"grpcHost": "grpc.example.com"})
    text = stream_proxy_files("data-egress", found)[STREAM_PROXY_CONFIG]
    lines = [line.split() for line in text.splitlines()]

    assert ["proxy_set_header", "Host", "vectors.example.com;"] in lines
    assert ["grpc_set_header", "Host", "grpc.example.com;"] in lines
    assert ["grpc_ssl_name", "grpc.example.com;"] in lines
    assert ["set", "$to_9202", "grpc.example.com:443;"] in lines


def test_plain_server_is_reached_without_tls(tmp_path: Path) -> None:
    found = outside("weaviate", server={"tls": "disable"})
    served = blocks(found, "data-egress", tmp_path)

    assert "ssl" not in stream_proxy_files("data-egress", found)[STREAM_PROXY_CONFIG]
    assert {one["listen"]["args"][0]: one["set"]["args"][1] for one in served["stream server"]} == {
        "127.0.0.1:19201": "vectors.example.com:8080",
        "127.0.0.1:19202": "vectors.example.com:50051",
    }


def file_of(found: Settings, service: str) -> object:
    return {one.path: one.content for one in spec(service, found, found.dify).files}.get(VECTOR_CA_FILE)


def test_whoever_verifies_the_server_has_the_ca_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(issue(ca=True, name="vectors").pem, encoding="ascii")
    pem, server = file.read_text(encoding="ascii"), {"caFile": str(file)}
    http, libpq = outside("qdrant", server=server), outside("pgvector", server=server)

    assert file_of(http, "data-egress") == file_of(libpq, "api") == file_of(libpq, "worker") == pem
    for service in ("api", "worker", "plugin-daemon", "data-proxy"):
        assert file_of(http, service) is None
    for service in ("data-egress", "data-proxy", "plugin-daemon", "web"):
        assert file_of(libpq, service) is None
    assert file_of(outside("qdrant"), "data-egress") == public_roots()
    assert file_of(outside("qdrant", server={"tls": "disable"}), "data-egress") is None


def test_proxy_of_the_company_is_not_used_for_the_store() -> None:
    found = outside("qdrant", outbound={"proxy": "http://proxy.example.com:3128"})

    listed = resolved(spec("api", found, found.dify).environment)["NO_PROXY"].split(",")
    assert "data-proxy" in listed


HOST = "vectors.example.com"
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"vectorStore": "milvus"}, "vectorStore", "vectorServer.host"),
    ({"vectorServer": {"port": 1}}, "vectorServer.port", "without a host"),
    ({"vectorServer": {"host": HOST}}, "vectorServer.user", "user name"),
    ({"vectorServer": {"host": "localhost", "user": "dify"}}, "vectorServer.host", "each container"),
    ({"vectorServer": {"host": "qdrant", "user": "dify"}}, "vectorServer.host", "service of the stack"),
    ({"vectorServer": {"host": "10.0.0.5", "user": "dify"}}, "vectorServer.host", "vectorServer.serverName"),
    ({"vectorServer": {"host": HOST, "user": "dify", "database": "a-b"}}, "vectorServer.database", "name"),
    ({"vectorServer": {"host": HOST, "user": "dify", "grpcPort": 1}}, "vectorServer.grpcPort", "weaviate"),
    ({"vectorStore": "qdrant", "vectorServer": {"host": HOST, "user": "x"}}, "vectorServer.user", "keys"),
    (
        {"vectorStore": "qdrant", "vectorServer": {"host": HOST, "tls": "require"}},
        "vectorServer.tls",
        "verify-full or disable",
    ),
    (
        {"vectorStore": "qdrant", "vectorServer": {"host": HOST, "database": "x"}},
        "vectorServer.database",
        "no databases",
    ),
    (
        {"vectorStore": "weaviate", "vectorServer": {"host": HOST, "grpcHost": "localhost"}},
        "vectorServer.grpcHost",
        "each container",
    ),
    (
        {
            "vectorServer": {"host": HOST, "user": "dify"},
            "database": {"host": "db.example.com", "tls": "require"},
        },
        "vectorServer.tls",
        "database.tls",
    ),
    (
        {"vectorStore": "weaviate", "weaviateVersion": "1.39.2", "vectorServer": {"host": HOST}},
        "weaviateVersion",
        "no effect",
    ),
    (
        {"extraEnv": {"api": {"QDRANT_URL": "http://q:6333"}}},
        "extraEnv.api.QDRANT_URL",
        "dify:vectorServer.host",
    ),
    (
        {
            "vectorStore": "qdrant",
            "vectorServer": {"host": HOST},
            "extraEnv": {"api": {"QDRANT_GRPC_ENABLED": "true"}},
        },
        "extraEnv.api.QDRANT_GRPC_ENABLED",
        "HTTP alone",
    ),
    (
        {"extraEnv": {"worker": {"MILVUS_URI": "http://m:1"}}},
        "extraEnv.worker.MILVUS_URI",
        "dify:vectorServer.host",
    ),
    (
        {"extraEnv": {"api": {"ELASTICSEARCH_USE_CLOUD": "true"}}},
        "extraEnv.api.ELASTICSEARCH_USE_CLOUD",
        "dify:vectorServer.tls",
    ),
    (
        {"extraEnv": {"api": {"OPENSEARCH_PASSWORD": "x"}}},
        "extraEnv.api.OPENSEARCH_PASSWORD",
        "dify:externalVectorPassword",
    ),
]


@pytest.mark.parametrize(("plain", "key", "words"), WRONG, ids=[f"{key}-{words}" for _, key, words in WRONG])
def test_wrong_setting_is_named_with_its_fix(plain: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(pulumi.RunError) as caught:
        settings({"vectorStore": "pgvector", **plain}, SECRETS)

    lines = [line for line in str(caught.value).splitlines() if line.startswith(f"  - dify:{key}:")]
    assert len(lines) == 1, str(caught.value)
    assert words in lines[0]


def test_password_is_required_and_never_shown() -> None:
    with pytest.raises(pulumi.RunError, match="externalVectorPassword: the secret is not set"):
        settings({"vectorServer": {"host": HOST, "user": "dify"}})

    assert PASSWORD not in repr(outside("pgvector").vector_server)


def test_another_kind_of_store_is_refused_unless_the_vectors_were_moved() -> None:
    held = FakeEngine(existing_volumes={"dify-unit-postgres"})
    made = {"dify-unit-postgres": {volumes.STACK_LABEL: "unit", volumes.VECTOR_LABEL: "weaviate"}}
    held.volume_labels = lambda _names: made  # type: ignore[method-assign, assignment]

    (refused,) = volumes.refusals(outside("qdrant"), held)
    assert "dify:vectorStore weaviate, and the settings say qdrant" in refused.problem
    assert volumes.refusals(outside("qdrant", server={"ownDataMoved": True}), held) == []
