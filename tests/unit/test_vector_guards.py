"""External vector stores that Dify could not use, by the answers that each kind of store gives over HTTP.

The servers here answer as the documentation of each store says. `tests/integration/test_weaviate.py` and
`test_external_data.py` hold the checks to a real Weaviate and a real pgvector.
"""

import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest

from infra.guards import vector_http, vector_server
from infra.guards.servers import UNREACHABLE
from support.certificates import Pair, issue
from support.configuration import settings
from support.ports import free_port
from tests.unit.cli.conftest import FakeEngine

ADDRESS, NAME = "127.0.0.1", "vectors.example.test"
PASSWORD = "external-password"  # of this test
# A frame of settings without any, by which a server of HTTP/2 begins.
SETTINGS_FRAME = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
Answers = Mapping[tuple[str, str], tuple[int, Any]]

WEAVIATE: Answers = {
    ("GET", "/v1/meta"): (200, {"version": "1.27.0", "hostname": "http://[::]:8080", "modules": {}}),
    ("GET", "/v1/.well-known/ready"): (200, {}),
    ("POST", "/v1/schema"): (200, {"class": "X"}),
    ("DELETE", "/v1/schema/"): (200, {}),
}
QDRANT: Answers = {
    ("GET", "/collections"): (200, {"result": {"collections": []}, "status": "ok"}),
    ("GET", "/"): (200, {"title": "qdrant - vector search engine", "version": "1.8.3"}),
    ("PUT", "/collections/"): (200, {"result": True}),
    ("DELETE", "/collections/"): (200, {"result": True}),
}
MILVUS: Answers = {("POST", "/v2/vectordb/collections/list"): (200, {"code": 0, "data": []})}
OPENSEARCH: Answers = {
    ("GET", "/"): (200, {"version": {"distribution": "opensearch", "number": "2.19.1"}}),
    ("PUT", "/dify-kit-check-"): (200, {"acknowledged": True}),
    ("DELETE", "/dify-kit-check-"): (200, {"acknowledged": True}),
}
ELASTICSEARCH: Answers = {
    **OPENSEARCH,
    ("GET", "/"): (200, {"version": {"number": "8.14.3"}, "tagline": "You Know, for Search"}),
}
SOUND = {
    "weaviate": WEAVIATE,
    "qdrant": QDRANT,
    "milvus": MILVUS,
    "opensearch": OPENSEARCH,
    "elasticsearch": ELASTICSEARCH,
}


class Store:
    """A store with some answers, on one port for HTTP and gRPC. `asked` are the requests, with their bodies."""

    def __init__(self, answers: Answers, pair: Pair | None, directory: Path) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str, Mapping[str, str], Any]] = []
        self.context: ssl.SSLContext | None = None
        if pair:
            (directory / "server.pem").write_text(pair.pem, encoding="ascii")
            (directory / "server.key").write_text(pair.key_pem, encoding="ascii")
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(directory / "server.pem", directory / "server.key")
            self.context.set_alpn_protocols(["h2", "http/1.1"])

    def answer(self, method: str, path: str) -> tuple[int, Any]:
        """Return the answer of the longest beginning of the path."""
        fitting = [
            one
            for one in self.answers
            if one[0] == method and (path == one[1] or (one[1] != "/" and path.startswith(one[1])))
        ]
        return (
            self.answers[max(fitting, key=lambda one: len(one[1]))]
            if fitting
            else (404, {"error": "no such path"})
        )

    @contextmanager
    def serving(self) -> Iterator[int]:
        """Serve, and return the port."""
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                if store.context:
                    self.request = store.context.wrap_socket(self.request, server_side=True)
                super().setup()

            def handle_one_request(self) -> None:
                begun = self.rfile.peek(3)[:3] if hasattr(self.rfile, "peek") else b""
                if begun == b"PRI":
                    self.wfile.write(SETTINGS_FRAME)
                    self.close_connection = True
                else:
                    super().handle_one_request()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

            def reply(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                store.asked.append(
                    (self.command, self.path, dict(self.headers), json.loads(body) if body else None)
                )
                status, found = store.answer(self.command, self.path)
                text = json.dumps(found).encode() if not isinstance(found, str) else found.encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_PUT = do_POST = do_DELETE = reply  # noqa: N815  # as the base class calls them

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Say nothing: clients end connections in the middle here."""

        with Server((ADDRESS, 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield server.server_address[1]
            server.shutdown()


@contextmanager
def grpc_serving(pair: Pair | None = None) -> Iterator[int]:
    """Serve gRPC's health protocol, and return the port."""
    check = grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"\x08\x01")
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check}),)
    )
    if pair:
        credentials = grpc.ssl_server_credentials([(pair.key_pem.encode(), pair.pem.encode())])
        port = server.add_secure_port(f"{ADDRESS}:0", credentials)
    else:
        port = server.add_insecure_port(f"{ADDRESS}:0")
    server.start()
    try:
        yield int(port)
    finally:
        server.stop(None).wait()


GRPC_PORT: list[int] = []


@pytest.fixture(scope="module", autouse=True)
def grpc_port() -> Iterator[None]:
    """The second port of every Weaviate of this module, where a test names no other."""
    with grpc_serving() as port:
        GRPC_PORT[:] = [port]
        yield


@pytest.fixture(autouse=True)
def loopback_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings reject this machine's loopback, which is another one in a container."""
    monkeypatch.setattr("infra.settings.external_data.is_loopback", lambda _host: False)


def refused(kind: str, port: int, **changed: Any) -> list[str]:
    user = {"user": "dify"} if kind in {"milvus", "opensearch", "elasticsearch"} else {}
    second = {"grpcPort": GRPC_PORT[0]} if kind == "weaviate" else {}
    server = {"host": ADDRESS, "port": port, "tls": "disable", **user, **second, **changed}
    found = settings({"vectorStore": kind, "vectorServer": server}, {"externalVectorPassword": PASSWORD})
    return [one.text("unit") for one in vector_server.refusals(found, FakeEngine())]


def checked(kind: str, answers: Answers, tmp_path: Path, **changed: Any) -> tuple[list[str], Store]:
    store = Store(answers, None, tmp_path)
    with store.serving() as port:
        return refused(kind, port, **changed), store


@pytest.mark.parametrize("kind", SOUND)
def test_store_that_admits_dify_is_not_refused_and_keeps_nothing(kind: str, tmp_path: Path) -> None:
    found, store = checked(kind, SOUND[kind], tmp_path)

    assert found == []
    made = [path for method, path, _, _ in store.asked if method == "PUT"]
    assert made == [path for method, path, _, _ in store.asked if method == "DELETE"] or kind == "weaviate"


HEADERS = {
    "weaviate": ("Authorization", f"Bearer {PASSWORD}"),
    "qdrant": ("api-key", PASSWORD),
    "milvus": ("Authorization", f"Bearer dify:{PASSWORD}"),
    "opensearch": ("Authorization", "Basic ZGlmeTpleHRlcm5hbC1wYXNzd29yZA=="),
    "elasticsearch": ("Authorization", "Basic ZGlmeTpleHRlcm5hbC1wYXNzd29yZA=="),
}


@pytest.mark.parametrize("kind", SOUND)
def test_credentials_are_those_that_dify_sends(kind: str, tmp_path: Path) -> None:
    _, store = checked(kind, SOUND[kind], tmp_path)
    name, value = HEADERS[kind]

    assert {headers.get(name) for _, _, headers, _ in store.asked} == {value}


def test_collection_of_the_check_has_the_index_that_dify_creates(tmp_path: Path) -> None:
    _, store = checked("opensearch", OPENSEARCH, tmp_path)
    (body,) = (body for method, _, _, body in store.asked if method == "PUT")

    assert body["settings"] == {"index": {"knn": True}}
    assert body["mappings"]["properties"]["vector"]["method"]["engine"] == "faiss"


NO = "{'error': 'no'}"
WRONG: list[tuple[str, Answers, list[str]]] = [
    ("weaviate", {("GET", "/v1/meta"): (401, NO)}, ["externalVectorPassword", "does not accept this key"]),
    (
        "weaviate",
        {("GET", "/v1/meta"): (200, {"version": "1.26.5"})},
        ["is weaviate 1.26.5", "use weaviate 1.27"],
    ),
    ("weaviate", {("GET", "/v1/meta"): (404, NO)}, ["vectorServer.host", "no weaviate", "404"]),
    ("weaviate", {("GET", "/v1/.well-known/ready"): (503, NO)}, ["is not ready"]),
    ("weaviate", {("POST", "/v1/schema"): (403, NO)}, ["may not create a collection", "every collection"]),
    (
        "qdrant",
        {("GET", "/collections"): (401, NO)},
        ["externalVectorPassword", "set externalVectorPassword"],
    ),
    ("qdrant", {("GET", "/collections"): (403, NO)}, ["externalVectorPassword", "does not accept this key"]),
    ("qdrant", {("PUT", "/collections/"): (403, NO)}, ["may not create a collection"]),
    ("qdrant", {("DELETE", "/collections/"): (403, NO)}, ["not delete it", "is left"]),
    ("qdrant", {("PUT", "/collections/"): (500, "disk full")}, ["creates no collection: 500 disk full"]),
    (
        "qdrant",
        {("GET", "/"): (200, {"title": "qdrant - vector search engine", "version": "1.7.4"})},
        ["is qdrant 1.7.4", "use qdrant 1.8"],
    ),
    ("qdrant", {("GET", "/"): (200, {"title": "another"})}, ["does not call itself qdrant", "vectorStore"]),
    ("milvus", {("POST", "/v2/"): (401, NO)}, ["vectorServer.user: dify", "externalVectorPassword"]),
    (
        "milvus",
        {("POST", "/v2/vectordb/collections/list"): (200, {"code": 1800, "message": "auth check failure"})},
        ["vectorServer.user: dify", "auth check failure"],
    ),
    (
        "milvus",
        {("POST", "/v2/vectordb/collections/list"): (200, {"code": 800, "message": "database not found"})},
        ["vectorServer.database: default", "create it there"],
    ),
    (
        "milvus",
        {("POST", "/v2/vectordb/collections/list"): (200, {"code": 65535, "message": "permission deny"})},
        ["vectorServer.user: dify", "denies what Dify does"],
    ),
    ("opensearch", {("GET", "/"): (401, "Unauthorized")}, ["vectorServer.user: dify", "with the password"]),
    ("opensearch", {("GET", "/"): ELASTICSEARCH["GET", "/"]}, ["does not call itself opensearch"]),
    (
        "opensearch",
        {("GET", "/"): (200, {"version": {"distribution": "opensearch", "number": "1.3.20"}})},
        ["is opensearch 1.3.20", "2.0"],
    ),
    (
        "opensearch",
        {("PUT", "/dify-kit-check-"): (400, {"error": "unknown setting [index.knn]"})},
        ["has no k-NN index", "plugin"],
    ),
    ("opensearch", {("PUT", "/dify-kit-check-"): (403, NO)}, ["vectorServer.user: dify", "not create"]),
    (
        "elasticsearch",
        {("GET", "/"): (200, {"version": {"number": "7.17.20"}})},
        ["is elasticsearch 7.17.20", "8.0"],
    ),
    ("elasticsearch", {("GET", "/"): OPENSEARCH["GET", "/"]}, ["does not call itself elasticsearch"]),
    ("elasticsearch", {("GET", "/"): (200, "<html>")}, ["vectorServer.host", "answers 200 to /"]),
]


@pytest.mark.parametrize(
    ("kind", "changed", "words"),
    WRONG,
    ids=[f"{kind}-{words[0]}-{n}" for n, (kind, _, words) in enumerate(WRONG)],
)
def test_store_that_does_not_admit_dify_is_refused(
    kind: str, changed: Answers, words: list[str], tmp_path: Path
) -> None:
    kept = {
        key: one
        for key, one in SOUND[kind].items()
        if not any(key[1].startswith(c[1]) for c in changed if c[0] == key[0] and len(c[1]) > 1)
    }
    found, _ = checked(kind, {**kept, **changed}, tmp_path)

    assert len(found) == 1, found
    assert all(word in found[0] for word in words), found
    assert PASSWORD not in found[0]


def test_milvus_without_its_http_api_is_not_refused(tmp_path: Path) -> None:
    assert checked("milvus", {}, tmp_path)[0] == []


@pytest.mark.parametrize("kind", SOUND)
def test_nothing_listens(kind: str) -> None:
    (found,) = refused(kind, free_port())

    assert found.startswith(f"dify:vectorServer.host: {ADDRESS}")
    assert UNREACHABLE in found


def test_grpc_is_refused_where_http_2_answers_another_way(tmp_path: Path) -> None:
    other = Store({}, None, tmp_path)
    with other.serving() as port:
        found, _ = checked("weaviate", WEAVIATE, tmp_path, grpcPort=port)

    assert f"vectorServer.grpcPort: {ADDRESS}:{port}: it does not answer by gRPC" in found[0]


def test_grpc_is_refused_where_another_protocol_answers(tmp_path: Path) -> None:
    other = ThreadingHTTPServer((ADDRESS, 0), BaseHTTPRequestHandler)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    try:
        found, _ = checked("weaviate", WEAVIATE, tmp_path, grpcPort=other.server_address[1])
    finally:
        other.shutdown()
        other.server_close()

    assert "vectorServer.grpcPort" in found[0]
    assert "does not answer by gRPC" in found[0]


@pytest.fixture(scope="module")
def ca() -> Pair:
    return issue(ca=True, name="vectors")


@pytest.mark.parametrize("kind", SOUND)
def test_server_is_verified_by_name_and_authority(kind: str, ca: Pair, tmp_path: Path) -> None:
    file, other = tmp_path / "ca.pem", tmp_path / "other.pem"
    file.write_text(ca.pem, encoding="ascii")
    other.write_text(issue(ca=True, name="another").pem, encoding="ascii")
    good: dict[str, Any] = {"tls": "verify-full", "caFile": str(file), "serverName": NAME}
    pair = issue([NAME], issuer=ca)
    store = Store(SOUND[kind], pair, tmp_path)
    with store.serving() as port, grpc_serving(pair) as second:
        good |= {"grpcPort": second} if kind == "weaviate" else {}
        assert refused(kind, port, **good) == []
        named = store.asked[-1][2]["Host"]
        (wrong_name,) = refused(kind, port, **good | {"serverName": "other.example.test"})
        (wrong_ca,) = refused(kind, port, **good | {"caFile": str(other)})
        (public,) = refused(kind, port, **good | {"caFile": ""})

    assert named == f"{NAME}:{port}"
    assert "other.example.test" in wrong_name
    assert all("ertificate" in line for line in (wrong_name, wrong_ca, public))


def test_plain_server_behind_a_setting_of_tls(tmp_path: Path) -> None:
    store = Store(QDRANT, None, tmp_path)
    with store.serving() as port:
        (found,) = refused("qdrant", port, tls="verify-full", serverName=NAME)

    assert found.startswith("dify:vectorServer.tls: ")


def test_engine_elsewhere_leaves_the_server_unchecked() -> None:
    found = settings(
        {"vectorStore": "qdrant", "vectorServer": {"host": "q.invalid"}}, {"externalVectorPassword": PASSWORD}
    )

    assert vector_server.refusals(found, FakeEngine(is_local=False)) == []
    assert vector_server.refusals(settings(), FakeEngine()) == []


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("1.27.0", (1, 27)), ("v2.5-rc1", (2, 5)), ("0.8.0", (0, 8)), ("1", (1, 0)), ("", (0, 0))],
)
def test_versions(text: str, numbers: tuple[int, int]) -> None:
    assert vector_http.version(text) == numbers
