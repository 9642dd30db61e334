"""CORS: every route group, origin and kind of answer."""

from concurrent.futures import ThreadPoolExecutor
from itertools import product

import httpx
import pytest

from support.stacks import wait_until
from tests.integration.edge.container import ALLOWED, GROUPS, Edge

ORIGINS = {
    "allowed": ALLOWED,
    "denied": "https://denied.example",
    "null": "null",
    "suffix": "https://app.example.com.evil.example",
    "prefix": "https://evil-app.example.com",
    "other port": "https://app.example.com:8443",
    "other scheme": "http://app.example.com",
    "upper case": "HTTPS://APP.EXAMPLE.COM",
    "trailing dot": "https://app.example.com.",
    "empty": "",
}
CASES = ("preflight", "200", "401", "404", "429", "500", "413", "down")
SINGLE = (
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-expose-headers",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-max-age",
    "vary",
    "x-request-id",
    "retry-after",
)


def ask(edge: Edge, group: str, origin: str, case: str) -> httpx.Response:
    headers = {"Origin": origin} if origin else {}
    path = GROUPS[group]
    if case == "preflight":
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        return edge.http.options(f"{path}/x", headers=headers | asked)
    if case == "413":
        limit = 51 if group == "console" else 12
        return edge.announce(f"{path}/x", headers, (limit + 5) * 1024 * 1024)
    status = "200" if case == "down" else case
    return edge.http.get(f"{path}/{status}", headers=headers)


def problems(group: str, origin: str, case: str, answer: httpx.Response) -> list[str]:
    """Return what is wrong with an answer's CORS headers."""
    found = []
    expected = {"preflight": 204, "413": 413, "down": 503}.get(case) or int(case)
    if case == "preflight" and not origin:
        expected = 200
    if answer.status_code != expected:
        found.append(f"status {answer.status_code} instead of {expected}")
    allow = answer.headers.get_list("access-control-allow-origin")
    if allow != ([ALLOWED] if origin == ALLOWED else []):
        found.append(f"Access-Control-Allow-Origin {allow}")
    credentials = answer.headers.get_list("access-control-allow-credentials")
    if credentials != (["true"] if origin == ALLOWED and group in {"console", "api"} else []):
        found.append(f"Access-Control-Allow-Credentials {credentials}")
    vary = [one.strip() for one in answer.headers.get("vary", "").split(",")]
    if vary.count("Origin") != 1:
        found.append(f"Vary {vary}")
    found += [f"{name} twice" for name in SINGLE if len(answer.headers.get_list(name)) > 1]
    if case in {"413", "down"} and answer.headers.get("content-type") != "application/json":
        found.append("no JSON")
    return found


@pytest.mark.parametrize("case", CASES)
def test_cors_matrix(edge: Edge, case: str) -> None:
    if case == "down":
        edge.upstream.stop(timeout=0)
    try:
        # At once, because an answer about a service that is gone takes as long as looking it up.
        with ThreadPoolExecutor(len(GROUPS) * len(ORIGINS)) as pool:
            found = pool.map(
                lambda pair: problems(
                    pair[0], ORIGINS[pair[1]], case, ask(edge, pair[0], ORIGINS[pair[1]], case)
                ),
                product(GROUPS, ORIGINS),
            )
            wrong = {
                pair: problem
                for pair, problem in zip(product(GROUPS, ORIGINS), found, strict=True)
                if problem
            }
    finally:
        if case == "down":
            edge.upstream.start()
            edge.wait()

    assert wrong == {}


def test_preflight_never_reaches_upstream(edge: Edge) -> None:
    headers = {"Origin": ALLOWED, "Access-Control-Request-Method": "POST"}

    answer = edge.http.options("/v1/chat-messages", headers=headers)

    assert "x-from-upstream" not in answer.headers
    assert answer.headers["access-control-max-age"] == "7200"
    # A 503 while the upstream starts is the edge's own.
    wait_until(
        lambda: "x-from-upstream" in edge.http.options("/v1/200").headers,
        seconds=60,
        what="the upstream answers",
    )
