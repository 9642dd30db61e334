"""The checks of external vector stores with HTTP and gRPC: one function for each kind of store."""

import secrets
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from infra import hints
from infra.guards.findings import Refusal
from infra.guards.servers import (
    TIMEOUT_SECONDS,
    UNREACHABLE,
    address_of,
    first_line,
    tls_refusal,
    unreachable,
)
from infra.settings.roots import public_roots
from infra.settings.vector_server import VECTOR_PASSWORD, WEAVIATE, VectorServer

if TYPE_CHECKING:
    import httpx

SETTING = "vectorServer"
# Weaviate and Qdrant: those of Dify's own compose folders. Elasticsearch: Dify rejects older ones. OpenSearch: the
# oldest line that is maintained.
LEAST: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"weaviate": (1, 27), "qdrant": (1, 8), "opensearch": (2, 0), "elasticsearch": (8, 0)}
)
_DIMENSION = 4
# A client of HTTP/2 begins with these words and a frame of settings (here: none), and the server sends its own.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS_FRAME, _FRAME_HEAD = 4, 9
_UNAUTHENTICATED, _FORBIDDEN, _NOT_FOUND, _SERVER_ERROR = 401, 403, 404, 500


def version(text: str) -> tuple[int, int]:
    """Return the first two numbers of a version; zeros for what is none."""
    parts = [*text.lstrip("v").split("-")[0].split("."), "0", "0"][:2]
    return (int(parts[0]), int(parts[1])) if all(part.isdecimal() for part in parts) else (0, 0)


class _RefusedError(Exception):
    """Carries the refusal of a server."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.problem)
        self.refusal = refusal


@dataclass(frozen=True, kw_only=True)
class _Api:
    """A server as the checks call it."""

    stack: str
    server: VectorServer
    client: "httpx.Client"

    def ask(self, method: str, path: str, body: object = None) -> "httpx.Response":
        """Send a request. Raises _RefusedError where the server does not accept the credentials."""
        answer = self.client.request(
            method, path, json=body, extensions={"sni_hostname": self.server.server_name}
        )
        if answer.status_code == _UNAUTHENTICATED:
            raise _RefusedError(self.credentials(_said(answer)))
        return answer

    def read(self, path: str) -> dict[str, Any]:
        """Return the document at a path. Raises _RefusedError."""
        answer = self.ask("GET", path)
        if answer.status_code == _FORBIDDEN:
            raise _RefusedError(self.credentials(_said(answer)))
        if answer.is_success and isinstance(found := _document(answer), dict):
            return found
        raise _RefusedError(self.other_server(f"answers {answer.status_code} to {path}"))

    def credentials(self, said: str) -> Refusal:
        """Return the refusal of user and password, or of the key."""
        server = self.server
        again = f"`{hints.assign(VECTOR_PASSWORD, stack=self.stack)}`"
        if not server.user:
            return Refusal(
                problem=f"dify:{VECTOR_PASSWORD}: {server.address} does not accept this key: {said}",
                fix=again,
            )
        return Refusal(
            problem=f"dify:vectorServer.user: {server.user}: {server.address} does not accept it with the password: "
            f"{said}",
            fix=f"correct the user, or {again}",
        )

    def other_server(self, words: str) -> Refusal:
        """Return the refusal of a server that is not of the kind in `dify:vectorStore`."""
        return Refusal(
            problem=f"dify:vectorServer.host: {self.server.host}: {self.server.address} is no {self.server.kind} that "
            f"serves: it {words}",
            fix="correct dify:vectorServer.host, dify:vectorServer.port or dify:vectorStore",
        )

    def check_version(self, found: str) -> None:
        """Raise _RefusedError for a version that is older than Dify needs."""
        kind, least = self.server.kind, LEAST[self.server.kind]
        if version(found) < least:
            raise _RefusedError(
                Refusal(
                    problem=f"dify:vectorServer.host: {self.server.host} is {kind} {found}",
                    fix=f"use {kind} {least[0]}.{least[1]} or newer",
                )
            )

    def check_created(self, method: str, path: str, body: object, remove: str) -> None:
        """Create a collection as Dify does, and remove it. Raises _RefusedError."""
        answer = self.ask(method, path, body)
        if not answer.is_success:
            raise _RefusedError(self._not_created(answer))
        removed = self.ask("DELETE", remove)
        if not removed.is_success:
            raise _RefusedError(
                self._rights(f"create a collection, and not delete it ({remove} is left)", _said(removed))
            )

    def _not_created(self, answer: "httpx.Response") -> Refusal:
        said = _said(answer)
        if answer.status_code == _FORBIDDEN:
            return self._rights("not create a collection", said)
        if "knn" in said.lower():
            return Refusal(
                problem=f"dify:vectorServer.host: {self.server.host}: {self.server.address} has no k-NN index: {said}",
                fix="install the k-NN plugin of OpenSearch there, which its minimal distribution lacks",
            )
        return Refusal(
            problem=f"dify:vectorServer.host: {self.server.host}: {self.server.address} creates no collection: "
            f"{answer.status_code} {said}",
            fix="see the log of the server",
        )

    def _rights(self, what: str, said: str) -> Refusal:
        server = self.server
        key = f"dify:vectorServer.user: {server.user}" if server.user else f"dify:{VECTOR_PASSWORD}"
        return Refusal(
            problem=f"{key}: at {server.address} it may {what}: {said}",
            fix="let it create, read, write and delete every collection there",
        )


def refusal(stack: str, server: VectorServer) -> Refusal | None:
    """Return why Dify cannot use a vector store with HTTP or gRPC, or None."""
    import httpx  # noqa: PLC0415  # for stacks with an external vector store alone

    trusted = _trusted(server)
    user = server.user if server.kind in {"opensearch", "elasticsearch"} else ""
    usual = 443 if server.encrypted else 80
    try:
        with httpx.Client(
            base_url=f"{'https' if trusted else 'http'}://{address_of(server) or server.host}:{server.port}",
            verify=trusted or False,
            auth=(user, server.known_password.text) if user else None,
            headers={
                "Host": server.server_name if server.port == usual else f"{server.server_name}:{server.port}",
                **_key(server),
            },
            timeout=TIMEOUT_SECONDS,
            trust_env=False,
        ) as client:
            _CHECKS[server.kind](_Api(stack=stack, server=server, client=client))
    except _RefusedError as problem:
        return problem.refusal
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as problem:
        return _not_reached(server, problem)
    return None


def _trusted(server: VectorServer) -> ssl.SSLContext | None:
    return ssl.create_default_context(cadata=server.ca or public_roots()) if server.encrypted else None


def _key(server: VectorServer) -> dict[str, str]:
    password = server.known_password.text
    return {
        "weaviate": {"Authorization": f"Bearer {password}"},
        "qdrant": {"api-key": password},
        "milvus": {"Authorization": f"Bearer {server.user}:{password}"},
    }.get(server.kind, {})


def _not_reached(server: VectorServer, problem: Exception) -> Refusal:
    cause: BaseException | None = problem
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return tls_refusal(SETTING, server, first_line(problem))
        cause = cause.__cause__ or cause.__context__
    return unreachable(SETTING, server, first_line(problem))


def _document(answer: "httpx.Response") -> object:
    try:
        return answer.json()
    except ValueError:
        return None


def _said(answer: "httpx.Response") -> str:
    """Return the beginning of an answer on one line. No store repeats a key there."""
    return " ".join(answer.text.split())[:300] or f"status {answer.status_code}"


def _name() -> str:
    return f"dify-kit-check-{secrets.token_hex(4)}"


def _weaviate(api: _Api) -> None:
    meta = api.read("/v1/meta")
    if "version" not in meta:
        raise _RefusedError(api.other_server("has no version at /v1/meta"))
    api.check_version(str(meta["version"]))
    if api.ask("GET", "/v1/.well-known/ready").status_code >= _SERVER_ERROR:
        raise _RefusedError(api.other_server("is not ready"))
    # Its names begin with a capital letter and have no hyphen.
    name = _name().title().replace("-", "")
    api.check_created("POST", "/v1/schema", {"class": name, "vectorizer": "none"}, f"/v1/schema/{name}")
    _check_grpc(api.server, api.server.grpc_host, api.server.grpc_port, api.server.grpc_server_name)
    _check_health(api.server)


def _qdrant(api: _Api) -> None:
    api.read("/collections")
    found = api.read("/")
    if "qdrant" not in str(found.get("title", "")):
        raise _RefusedError(api.other_server("does not call itself qdrant"))
    api.check_version(str(found.get("version", "")))
    path = f"/collections/{_name()}"
    api.check_created("PUT", path, {"vectors": {"size": _DIMENSION, "distance": "Cosine"}}, path)


def _opensearch(api: _Api) -> None:
    found = api.read("/").get("version")
    about = found if isinstance(found, dict) else {}
    if about.get("distribution") != "opensearch":
        raise _RefusedError(api.other_server("does not call itself opensearch"))
    api.check_version(str(about.get("number", "")))
    vector = {
        "type": "knn_vector",
        "dimension": _DIMENSION,
        "method": {"name": "hnsw", "space_type": "l2", "engine": "faiss"},
    }
    body = {"settings": {"index": {"knn": True}}, "mappings": {"properties": {"vector": vector}}}
    path = f"/{_name()}"
    api.check_created("PUT", path, body, path)


def _elasticsearch(api: _Api) -> None:
    found = api.read("/").get("version")
    about = found if isinstance(found, dict) else {}
    if "number" not in about or about.get("distribution"):
        raise _RefusedError(api.other_server("does not call itself elasticsearch"))
    api.check_version(str(about["number"]))
    vector = {"type": "dense_vector", "dims": _DIMENSION, "index": True, "similarity": "cosine"}
    path = f"/{_name()}"
    api.check_created("PUT", path, {"mappings": {"properties": {"vector": vector}}}, path)


def _milvus(api: _Api) -> None:
    server = api.server
    _check_grpc(server, server.host, server.port, server.server_name)
    # The same port answers HTTP since 2.4, unless the server turns that off: then gRPC is all that is checked.
    answer = api.ask("POST", "/v2/vectordb/collections/list", {"dbName": server.database})
    found = _document(answer)
    if not isinstance(found, dict) or not found.get("code"):
        return
    said = str(found.get("message", ""))
    words = said.lower()
    if "database" in words and "not found" in words:
        raise _RefusedError(
            Refusal(
                problem=f"dify:vectorServer.database: {server.database}: {server.address} has no such database: {said}",
                fix="create it there, or correct the setting",
            )
        )
    if "auth" in words or "password" in words:
        raise _RefusedError(api.credentials(said))
    raise _RefusedError(
        Refusal(
            problem=f"dify:vectorServer.user: {server.user}: {server.address} denies what Dify does: {said}",
            fix="let the user create, read, write and drop every collection of the database",
        )
    )


def _check_grpc(server: VectorServer, host: str, port: int, name: str) -> None:
    """Raise _RefusedError where a port does not answer by HTTP/2, which gRPC uses."""
    second = server.kind == WEAVIATE
    keys = "grpcHost, dify:vectorServer.grpcPort" if second else "host, dify:vectorServer.port"
    wrong = f"dify:vectorServer.{keys}: {host}:{port}"
    trusted = _trusted(server)
    try:
        with socket.create_connection((host, port), TIMEOUT_SECONDS) as plain:
            if trusted:
                trusted.set_alpn_protocols(["h2"])
                with trusted.wrap_socket(plain, server_hostname=name) as secure:
                    begun = _speaks_http2(secure)
            else:
                begun = _speaks_http2(plain)
    except ssl.SSLError as problem:
        if not second:
            raise
        said = first_line(problem)
        raise _RefusedError(
            Refusal(
                problem=f"{wrong}: TLS of its gRPC fails: {said}",
                fix=f"use a certificate for {name} of the same authority there, or correct the setting",
            )
        ) from None
    except OSError as problem:
        if not second:
            raise
        raise _RefusedError(
            Refusal(
                problem=f"{wrong} {UNREACHABLE}: {first_line(problem)}",
                fix="correct the setting, or open the way to the server",
            )
        ) from None
    if not begun:
        raise _RefusedError(
            Refusal(
                problem=f"{wrong}: it does not answer by gRPC",
                fix="name the port of the server's gRPC",
            )
        )


def _check_health(server: VectorServer) -> None:
    """Raise _RefusedError where Weaviate's second port is one of HTTP/2, and not that of its gRPC."""
    import grpc  # type: ignore[import-untyped]  # noqa: PLC0415

    where = f"{server.grpc_host}:{server.grpc_port}"
    options: list[tuple[str, Any]] = [("grpc.enable_http_proxy", 0)]
    if server.encrypted:
        options.append(("grpc.ssl_target_name_override", server.grpc_server_name))
        roots = grpc.ssl_channel_credentials((server.ca or public_roots()).encode())
        channel = grpc.secure_channel(where, roots, options)
    else:
        channel = grpc.insecure_channel(where, options)
    with channel:
        try:
            channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as problem:
            raise _RefusedError(
                Refusal(
                    problem=f"dify:vectorServer.grpcHost, dify:vectorServer.grpcPort: {where}: it does not answer by "
                    f"gRPC: {' '.join(str(problem.details()).split())}",
                    fix="name host and port of the server's gRPC, which are others than those of its HTTP",
                )
            ) from None


def _speaks_http2(connection: socket.socket) -> bool:
    connection.sendall(_PREFACE)
    head = b""
    while len(head) < _FRAME_HEAD:
        more = connection.recv(_FRAME_HEAD - len(head))
        if not more:
            return False
        head += more
    return head[3] == _SETTINGS_FRAME


_CHECKS: Mapping[str, Callable[[_Api], None]] = MappingProxyType(
    {
        "weaviate": _weaviate,
        "qdrant": _qdrant,
        "milvus": _milvus,
        "opensearch": _opensearch,
        "elasticsearch": _elasticsearch,
    }
)
