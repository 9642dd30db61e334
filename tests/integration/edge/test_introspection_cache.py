"""nginx's cache of introspection results under a flood from outside: every request gets a response."""

import base64
import dataclasses
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from infra.edge.context import EdgeContext
from infra.edge.paths import INTROSPECTION_CACHE, INTROSPECTION_KEYS, RUN_MEGABYTES
from tests.integration.edge.container import ALLOWED
from tests.integration.edge.llm import LlmEdge

# The same proportions as in a stack, with less to send: keys, the tmpfs, and headers as long as nginx takes them.
SCALE = 8
TOKEN_BYTES = 15_000
AT_ONCE = 16
SECONDS = 60


class SmallStore(LlmEdge):
    """An edge whose store of introspection results, and the tmpfs that it lies on, are an eighth of a stack's."""

    run_megabytes = RUN_MEGABYTES // SCALE

    def _context(self, context: EdgeContext) -> EdgeContext:
        found = super()._context(context)
        assert found.oauth is not None
        keys = f"{int(INTROSPECTION_KEYS.removesuffix('k')) // SCALE}k"
        return dataclasses.replace(found, oauth=dataclasses.replace(found.oauth, introspection_keys=keys))

    def kept_kilobytes(self) -> int:
        """Return how much of the tmpfs the introspection results take."""
        return int(self.inside("du", "-sk", INTROSPECTION_CACHE).split()[0])


@pytest.fixture(scope="module")
def small(open_directory: Callable[[], Path]) -> Iterator[SmallStore]:
    one = SmallStore(open_directory())
    try:
        yield one
    finally:
        one.remove()


def token(status: str) -> str:
    """Return a token that is in no cache, and for which the gateway's stand-in returns this status."""
    claims = base64.urlsafe_b64encode(
        json.dumps({"Sub": "app1", "Tenant": "acme", "Scopes": "chat llm"}).encode()
    )
    unknown = secrets.token_urlsafe(TOKEN_BYTES)[:TOKEN_BYTES]
    return f"{unknown}.{claims.decode().rstrip('=')}.{status}"


def ask(small: SmallStore, one: str, path: str = "/v1/parameters") -> httpx.Response:
    headers = {"Authorization": f"Bearer {one}", "Origin": ALLOWED}
    return small.http.get(path, headers=headers, timeout=SECONDS)


def persist(small: SmallStore, path: str) -> list[httpx.Response]:
    """Send a new token until it is accepted, as a client that waits for `Retry-After` does; return all responses."""
    new, answers = token("200"), []
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        answers.append(ask(small, new, path))
        if answers[-1].status_code == 200:
            break
        time.sleep(min(1.0, float(answers[-1].headers["retry-after"])))
    return answers


@pytest.mark.parametrize("path", ["/v1/parameters", "/llm/v1/models"])
def test_a_flood_of_tokens_leaves_no_request_without_an_answer(small: SmallStore, path: str) -> None:
    # Twice the bytes that the tmpfs has. If nginx kept all of them, requests would end without a response.
    count = 1 + 2 * SmallStore.run_megabytes * 1024 * 1024 // TOKEN_BYTES

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = [one for each in pool.map(lambda _: persist(small, path), range(count)) for one in each]

    # 429: too many new tokens of an address. 503: introspection takes longer than two seconds, on a busy machine.
    statuses = Counter(one.status_code for one in answers)
    assert statuses.keys() <= {200, 429, 503}
    assert statuses[200] > count * 0.9
    for one in answers:
        if one.status_code != 200:
            assert one.headers["retry-after"]
            assert one.json()
    assert small.kept_kilobytes() < SmallStore.run_megabytes * 1024 * 0.9
    # As before, for a token that is new and for one that is not valid.
    assert ask(small, token("200"), path).status_code == 200
    refused = ask(small, token("401"), path)
    assert refused.status_code == 401
    assert refused.json()
    small.logged(refused.headers["x-request-id"])
    assert "No space left" not in small.nginx.logs().decode()


def test_without_an_introspection_result_a_page_reads_a_503(small: SmallStore) -> None:
    for path in ("/v1/parameters", "/llm/v1/models"):
        answer = ask(small, token("503"), path)

        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert answer.headers.get_list("content-type") == ["application/json"]
        assert answer.json()
        if path.startswith("/llm/"):
            assert answer.headers["access-control-allow-origin"] == ALLOWED
    assert ask(small, token("200")).status_code == 200
