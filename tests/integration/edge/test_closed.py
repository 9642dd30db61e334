"""What the edge keeps to itself: Dify's descriptions of its API, and the console's rooms from other pages."""

from collections.abc import Callable
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smoke_tests.closed import schema_paths
from tests.integration.edge.container import ALLOWED, GROUPS, Edge
from tests.integration.edge.test_bad_input import paths_seen, request

ELSEWHERE = "https://elsewhere.example"
NAMES = ("swagger.json", "swagger-ui.html", "docs", "_catalog", "openapi.json", "swaggerui")
PREFIXES = ("/v1", "/api", "/console/api", "/files", "/mcp", "/triggers", "/openapi", "/openapi/v1")
BOUNDED = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def is_schema(path: str) -> bool:
    """Tell whether Dify could take a path, as upstream saw it, for one of its schemas: decoded once, slashes merged."""
    decoded = unquote(urlsplit(f".{path}").path)
    merged = "/" + "/".join(part for part in decoded.removeprefix(".").split("/") if part not in {"", "."})
    return merged in {f"{prefix}/{name}" for prefix in PREFIXES for name in NAMES}


@pytest.mark.parametrize("path", schema_paths({*GROUPS, "openapi"}))
def test_no_schema_is_reached(edge: Edge, path: str) -> None:
    answer = edge.raw(request(path.encode(), f"Origin: {ALLOWED}".encode())).response

    assert answer.status_code == 404
    assert answer.json() == {"code": "not_found", "message": "There is nothing here.", "status": 404}
    if path.startswith("/v1/"):
        assert answer.headers["access-control-allow-origin"] == ALLOWED


@pytest.mark.parametrize("method", ["HEAD", "POST", "OPTIONS"])
def test_no_method_reaches_a_schema(edge: Edge, method: str) -> None:
    answer = edge.http.request(method, "/v1/swagger.json")

    assert (answer.status_code, "x-from-upstream" in answer.headers) == (404, False)


SEGMENTS = st.sampled_from(
    [
        *("v1", "api", "console", "openapi", "files", "console%2fapi", "%76%31", "V1"),
        *("swagger.json", "%73wagger.json", "swagger%2Ejson", "SWAGGER.json", "swagger-ui.html", "swaggerui"),
        *(
            "%2573wagger.json",
            "swagger.json%00",
            "swagger.json%20",
            "swagger.json;x",
            "swagger.json%2f",
            "docs",
        ),
        *("", ".", "..", "%2e", "%2f", "?", "#", "\\", "_catalog", "swagger.json%0a", "swagger.json?x=/v1"),
    ]
)


@BOUNDED
@given(st.lists(SEGMENTS, min_size=1, max_size=6))
def test_no_way_of_writing_a_path_reaches_a_schema(edge: Edge, segments: list[str]) -> None:
    answer = edge.raw(request(("/" + "/".join(segments)).encode()))

    assert not [path for path in paths_seen(answer) if is_schema(path)]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/datasets/docs",
        "/console/api/datasets/x/error-docs",
        "/console/api/spec/schema-definitions",
        "/files/x/swagger.json",
        "/e/hook/swagger.json",
        "/v1/swag",
        "/docsearch",
        "/v1/parameters?file=/v1/swagger.json",
    ],
)
def test_everything_else_passes(edge: Edge, path: str) -> None:
    assert edge.http.get(path).headers["x-from-upstream"] == "1"


def test_a_stack_that_wants_them_open_serves_them(start_edge: Callable[..., Edge]) -> None:
    edge = start_edge(plain={"apiSchema": True})

    for path in ("/v1/swagger.json", "/console/api/swagger-ui.html", "/swaggerui/x.css"):
        assert edge.http.get(path).json()["path"] == path


POLLING = "/socket.io/?EIO=4&transport=polling"
WEBSOCKET = "/socket.io/?EIO=4&transport=websocket"
UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket"}


@pytest.fixture(scope="module")
def rooms(start_edge: Callable[..., Edge]) -> Edge:
    """An edge whose console may be called from one other origin."""
    return start_edge(plain={"cors": {"console": [ALLOWED]}, "urls": {"console": "http://console.test:9000"}})


@pytest.mark.parametrize("path", [POLLING, WEBSOCKET, "/socket.io//x", "/%73ocket.io/?EIO=4"])
@pytest.mark.parametrize(
    "origin",
    [
        ELSEWHERE,
        "null",
        "http://localhost",
        "http://localhost:1",
        "https://localhost:{port}",
        "http://localhost:{port}.evil.example",
        "http://localhost:{port} http://localhost:{port}",
        "http://evil.example, http://localhost:{port}",
        ALLOWED.upper(),
        f"{ALLOWED}.evil.example",
        "https://appxexample.com",
    ],
)
def test_other_pages_do_not_join_the_consoles_rooms(rooms: Edge, path: str, origin: str) -> None:
    sent = origin.format(port=rooms.port_number)
    answer = rooms.http.get(path, headers={**UPGRADE, "Origin": sent})

    assert answer.status_code == 403
    assert answer.json() == {"code": "forbidden", "message": "Access is not allowed.", "status": 403}
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", [POLLING, WEBSOCKET])
@pytest.mark.parametrize("origin", ["http://localhost:{port}", ALLOWED, "http://console.test:9000"])
def test_pages_of_the_console_join(rooms: Edge, path: str, origin: str) -> None:
    sent = origin.format(port=rooms.port_number)
    answer = rooms.http.get(path, headers={**UPGRADE, "Origin": sent})

    assert answer.status_code == 200
    assert dict(answer.json()["seen"])["Upgrade"] == "websocket"
    # Polls from another origin that may call the console have to be readable there, with cookies.
    listed = None if sent.startswith("http://localhost") else sent
    assert answer.headers.get("access-control-allow-origin") == listed
    assert answer.headers.get("access-control-allow-credentials") == (listed and "true")


def test_without_an_origin_only_tags_of_other_pages_are_refused(rooms: Edge) -> None:
    def status(**headers: str) -> int:
        return rooms.http.get(POLLING, headers=headers).status_code

    def from_a(site: str) -> int:
        return status(**{"Sec-Fetch-Site": site})

    assert [status(), from_a("same-origin"), from_a("none")] == [200] * 3
    assert [from_a("cross-site"), from_a("same-site")] == [403] * 2


@pytest.mark.parametrize("path", ["/v1/200", "/console/api/200", "/"])
def test_no_other_route_judges_the_origin(rooms: Edge, path: str) -> None:
    assert rooms.http.get(path, headers={"Origin": ELSEWHERE}).status_code == 200
