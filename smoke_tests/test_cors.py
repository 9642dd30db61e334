"""Who may call from a browser: exactly the configured origins, and nobody who resembles them."""

import httpx
import pytest

from smoke_tests.origins import DENIED, FALLBACK, look_alikes
from smoke_tests.target import Target

# One harmless path of each route group; what it answers does not matter here, its headers do.
PATHS = {
    "v1": "/v1/info",
    "api": "/api/passport",
    "console": "/console/api/setup",
    "files": "/files/11111111-1111-1111-1111-111111111111/file-preview",
    "mcp": "/mcp/server/none/mcp",
    "triggers": "/triggers/webhook/none",
}
WAYS = sorted(look_alikes(FALLBACK))
CORS_HEADERS = (
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-max-age",
)


def preflight(client: httpx.Client, path: str, origin: str) -> httpx.Response:
    """Ask as a browser asks before a JSON request with a key."""
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    return client.options(path, headers=headers)


def expected(target: Target, group: str, origin: str) -> list[str]:
    """Return the Access-Control-Allow-Origin headers that an origin has to get."""
    allowed = target.allowed(group)
    if "*" in allowed:
        return ["*"]
    return [origin] if origin in allowed else []


def allow_origin(response: httpx.Response) -> list[str]:
    """Return every Access-Control-Allow-Origin of an answer."""
    return response.headers.get_list("access-control-allow-origin")


def varies_by_origin(response: httpx.Response) -> None:
    """Demand that caches keep origins apart, said once."""
    named = [name.strip().lower() for name in response.headers.get("vary", "").split(",")]
    assert named.count("origin") == 1


def test_allowed_origin_may_call(caller: httpx.Client, target: Target) -> None:
    for origin in target.allowed("v1"):
        if origin == "*":
            continue
        response = caller.get(PATHS["v1"], headers={"Origin": origin})
        assert response.status_code == httpx.codes.OK
        assert allow_origin(response) == [origin]
        varies_by_origin(response)


def test_allowed_origin_may_ask_first(anonymous: httpx.Client, target: Target) -> None:
    for origin in target.allowed("v1"):
        response = preflight(anonymous, "/v1/chat-messages", FALLBACK if origin == "*" else origin)
        assert response.status_code == httpx.codes.NO_CONTENT
        assert allow_origin(response) == [origin]
        assert "POST" in response.headers["access-control-allow-methods"]
        assert "authorization" in response.headers["access-control-allow-headers"].lower()
        assert int(response.headers["access-control-max-age"]) > 0


@pytest.mark.parametrize("way", WAYS)
def test_look_alike_may_not_call(caller: httpx.Client, target: Target, way: str) -> None:
    base = next((origin for origin in target.allowed("v1") if origin != "*"), FALLBACK)
    origin = look_alikes(base).get(way, DENIED)

    answer = caller.get(PATHS["v1"], headers={"Origin": origin})
    asked = preflight(caller, "/v1/chat-messages", origin)

    assert allow_origin(answer) == expected(target, "v1", origin)
    assert allow_origin(asked) == expected(target, "v1", origin)
    varies_by_origin(answer)


@pytest.mark.parametrize("group", PATHS)
def test_unknown_origin_gets_nothing_from_any_group(
    anonymous: httpx.Client, target: Target, group: str
) -> None:
    answers = [
        anonymous.get(PATHS[group], headers={"Origin": DENIED}),
        preflight(anonymous, PATHS[group], DENIED),
    ]

    for answer in answers:
        assert allow_origin(answer) == expected(target, group, DENIED)
        if not expected(target, group, DENIED):
            assert [name for name in CORS_HEADERS if name in answer.headers] == []
        varies_by_origin(answer)


def test_errors_carry_cors_headers_once(anonymous: httpx.Client, target: Target) -> None:
    origin = next((origin for origin in target.allowed("v1") if origin != "*"), DENIED)

    unauthorized = anonymous.get(PATHS["v1"], headers={"Origin": origin})
    missing = anonymous.get("/v1/no-such-route", headers={"Origin": origin})

    assert (unauthorized.status_code, missing.status_code) == (401, 404)
    for answer in (unauthorized, missing):
        assert allow_origin(answer) == expected(target, "v1", origin)
        for name in CORS_HEADERS:
            assert len(answer.headers.get_list(name)) <= 1


def test_service_api_never_allows_credentials(anonymous: httpx.Client, target: Target) -> None:
    for origin in (*target.allowed("v1"), DENIED):
        answer = preflight(anonymous, "/v1/chat-messages", origin)
        assert "access-control-allow-credentials" not in answer.headers


def test_answer_without_origin_says_that_it_varies(caller: httpx.Client) -> None:
    varies_by_origin(caller.get(PATHS["v1"]))
