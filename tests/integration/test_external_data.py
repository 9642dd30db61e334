"""A stack whose database, Redis and pgvector are outside of it, by TLS with a private CA, and what is refused there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.guards import database, redis_server, vector_server
from support.certificates import issue
from support.configuration import settings
from support.stacks import Stack
from tests.integration.containers import printed
from tests.integration.data_servers import DATABASE_NAME, REDIS_NAME, DataServers
from tests.integration.refusals import assert_one
from tests.unit.cli.conftest import FakeEngine

RESOLVE = "import socket, sys; print(socket.gethostbyname(sys.argv[1]))"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, servers: DataServers) -> Iterator[Stack]:
    """The stack, deployed."""
    stack = Stack(home=tmp_path_factory.mktemp("home"), release="1.17.1")
    try:
        created = stack.init(
            set=(
                f"database={json.dumps(servers.database)}",
                f"redis={json.dumps(servers.redis)}",
                f"vectorServer={json.dumps(servers.vectors)}",
            )
        )
        assert created.code == 0, created.output
        for key in ("externalDatabasePassword", "externalRedisPassword", "externalVectorPassword"):
            done = stack.pulumi("config", "set", "--secret", f"dify:{key}", stdin=servers.password)
            assert done.code == 0, done.output
        stack.first = stack.up()
        yield stack
    finally:
        stack.remove()


def refused_database(servers: DataServers, password: str = "", **changed: Any) -> list[str]:
    found = settings(
        {"database": servers.database | changed},
        {"externalDatabasePassword": password or servers.password},
    )
    return [one.text("unit") for one in database.refusals(found, FakeEngine())]


def refused_redis(servers: DataServers, password: str = "", **changed: Any) -> list[str]:
    found = settings(
        {"redis": servers.redis | changed}, {"externalRedisPassword": password or servers.password}
    )
    return [one.text("unit") for one in redis_server.refusals(found, FakeEngine())]


def refused_vectors(servers: DataServers, password: str = "", **changed: Any) -> list[str]:
    found = settings(
        {"vectorServer": servers.vectors | changed}, {"externalVectorPassword": password or servers.password}
    )
    return [one.text("unit") for one in vector_server.refusals(found, FakeEngine())]


def test_servers_that_admit_dify_are_not_refused(servers: DataServers) -> None:
    assert refused_database(servers) == []
    assert refused_redis(servers) == []
    assert refused_vectors(servers) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        pytest.param({"port": 1}, ["database.host", "unreachable"], id="unreachable"),
        pytest.param({"serverName": "other.test"}, ["database.serverName: other.test"], id="name"),
        pytest.param({"tls": "disable", "caFile": "", "serverName": ""}, [], id="plain"),
        pytest.param({"user": "poor"}, ["database.database: dify", "schema public"], id="rights"),
        pytest.param({"user": "absent"}, ["database.user: absent", "externalDatabasePassword"], id="user"),
        pytest.param(
            {"database": "nosuch"}, ["database.database: nosuch", "create database nosuch"], id="database"
        ),
        pytest.param(
            {"pluginDatabase": "plain"}, ["database.pluginDatabase: plain", "schema public"], id="plugins"
        ),
    ],
)
def test_database_that_does_not_admit_dify_is_refused(
    servers: DataServers, changed: dict[str, Any], words: list[str]
) -> None:
    found = refused_database(servers, **changed)

    assert bool(found) == bool(words), found
    assert all(word in found[0] for word in words), found
    assert servers.password not in "".join(found)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        pytest.param({"port": 1}, ["redis.host", "unreachable"], id="unreachable"),
        pytest.param({"serverName": "other.test"}, ["redis.serverName: other.test"], id="name"),
        pytest.param({"user": "absent"}, ["redis.user: absent", "externalRedisPassword"], id="user"),
        pytest.param({"user": "reader"}, ["redis.user: reader", "ACL SETUSER reader"], id="rights"),
    ],
)
def test_redis_that_does_not_admit_dify_is_refused(
    servers: DataServers, changed: dict[str, Any], words: list[str]
) -> None:
    found = refused_redis(servers, **changed)

    assert_one(found, words, servers.password)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        pytest.param({"port": 1}, ["vectorServer.host", "unreachable"], id="unreachable"),
        pytest.param({"serverName": "other.test"}, ["vectorServer.serverName: other.test"], id="name"),
        pytest.param({"user": "absent"}, ["vectorServer.user: absent", "externalVectorPassword"], id="user"),
        pytest.param({"user": "poor"}, ["vectorServer.database: vectors", "schema public"], id="rights"),
        pytest.param(
            {"database": "nosuch"}, ["vectorServer.database: nosuch", "create database nosuch"], id="database"
        ),
        pytest.param(
            {"database": "dify"}, ["vectorServer.database: dify", "`create extension vector`"], id="extension"
        ),
    ],
)
def test_pgvector_that_does_not_admit_dify_is_refused(
    servers: DataServers, changed: dict[str, Any], words: list[str]
) -> None:
    found = refused_vectors(servers, **changed)

    assert_one(found, words, servers.password)


def test_wrong_password_and_another_authority_are_refused(servers: DataServers, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_text(issue(ca=True, name="another").pem, encoding="ascii")

    assert "dify:database.user: dify" in refused_database(servers, password="wrong-password")[0]
    assert "dify:redis.user: dify" in refused_redis(servers, password="wrong-password")[0]
    assert "dify:database.caFile" in refused_database(servers, caFile=str(other))[0]
    assert "dify:redis.caFile" in refused_redis(servers, caFile=str(other))[0]
    assert "dify:vectorServer.user: dify" in refused_vectors(servers, password="wrong-password")[0]
    assert "dify:vectorServer.caFile" in refused_vectors(servers, caFile=str(other))[0]


def test_stack_runs_no_data_service_of_its_own(stack: Stack) -> None:
    running = stack.containers()

    assert {"data-proxy", "data-egress", "api", "worker", "plugin-daemon"} <= running.keys()
    assert not {"db-postgres", "redis", "pgvector"} & running.keys()
    assert not [name for name in stack.volumes() if name.endswith(("-postgres", "-redis", "-vector"))]


def test_chat_is_stored_in_the_external_database(stack: Stack, servers: DataServers) -> None:
    key = stack.outputs(secrets_too=True)["canaryKey"]

    answer = httpx.post(
        f"{stack.url}/v1/chat-messages",
        headers={"Authorization": f"Bearer {key}"},
        json={"inputs": {}, "query": "to the outside", "user": "integration"},
        timeout=30,
    )

    assert answer.status_code == 200, answer.text
    assert servers.sql("select count(*) from messages where query = 'to the outside'", "dify") == "1"
    assert servers.sql("select count(*) from pg_tables where schemaname = 'public'", "dify_plugin") != "0"


def test_every_connection_to_the_database_is_by_tls(stack: Stack, servers: DataServers) -> None:
    assert stack.well("api")
    ssl = "select bool_and(ssl), count(*) > 0 from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'dify'"

    assert servers.sql(ssl) == "t|t"


@pytest.mark.parametrize("service", ["api", "worker", "worker-beat", "plugin-daemon", "agent-backend"])
def test_service_is_healthy_with_external_servers(stack: Stack, service: str) -> None:
    assert stack.well(service)


def test_clients_reach_the_servers_through_the_proxy_alone(stack: Stack, servers: DataServers) -> None:
    api = stack.container("api")
    networks = api.attrs["NetworkSettings"]["Networks"]
    proxy = stack.container("data-proxy").attrs["NetworkSettings"]["Networks"][f"dify-{stack.name}-data"]

    for name in (DATABASE_NAME, REDIS_NAME):
        assert printed(api, ["python3", "-c", RESOLVE, name]).strip() == proxy["IPAddress"]
    assert f"dify-{stack.name}-data_egress" not in networks
    # The proxy itself has no route out, and leads to no other address.
    stopped = stack.container("data-proxy").exec_run(
        ["bash", "-c", f"exec 3<>/dev/tcp/{servers.address}/{servers.database_port}"]
    )
    assert stopped.exit_code != 0


# What Dify's client of pgvector does: it connects with these five values alone, and libpq reads the rest.
VECTORS = """
import os, psycopg
given = {"host": "HOST", "port": "PORT", "user": "USER", "password": "PASSWORD", "dbname": "DATABASE"}
with psycopg.connect(**{key: os.environ["PGVECTOR_" + name] for key, name in given.items()}) as connection:
    connection.execute("create table if not exists embedding_unit (id int, embedding vector(3) not null)")
    connection.execute("create index if not exists unit on embedding_unit using hnsw (embedding vector_cosine_ops)")
    connection.execute("truncate embedding_unit")
    connection.execute("insert into embedding_unit values (1, '[1,0,0]'), (2, '[0,1,0]')")
    print(connection.execute("select id from embedding_unit order by embedding <=> '[0.1,1,0]' limit 1").fetchone()[0])
    print(connection.execute("select ssl from pg_stat_ssl where pid = pg_backend_pid()").fetchone()[0])
"""


@pytest.mark.parametrize("service", ["api", "worker"])
def test_vectors_are_stored_outside_by_tls(stack: Stack, servers: DataServers, service: str) -> None:
    assert printed(stack.container(service), ["python3", "-c", VECTORS]).split() == ["2", "True"]
    assert servers.sql("select count(*) from embedding_unit", "vectors") == "2"


def test_next_up_and_preview_change_nothing(stack: Stack) -> None:
    assert stack.steps("--refresh") == {}


def test_own_data_is_not_left_behind_silently(servers: DataServers) -> None:
    password = {"externalVectorPassword": servers.password}
    (refused,) = vector_server.refusals(
        settings({"vectorServer": servers.vectors}, password),
        FakeEngine(existing_volumes={"dify-unit-vector"}),
    )
    assert "flask vdb-migrate" in refused.text("unit")
    assert "vectorServer.ownDataMoved" in refused.text("unit")
    plain, secret = {"database": servers.database}, {"externalDatabasePassword": servers.password}
    moved = {"database": servers.database | {"ownDataMoved": True}}

    (refused,) = database.refusals(
        settings(plain, secret), FakeEngine(existing_volumes={"dify-unit-postgres"})
    )
    assert "pg_dump" in refused.text("unit")
    assert "database.ownDataMoved" in refused.text("unit")
    assert (
        database.refusals(settings(moved, secret), FakeEngine(existing_volumes={"dify-unit-postgres"})) == []
    )
