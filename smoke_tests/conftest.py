"""Find what is to be tested. Nothing here deploys, changes or destroys it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from smoke_tests.client import USER, make_client
from smoke_tests.target import BearerKey, Target, TargetError, from_address, from_stack, read_key

NEEDS_STACK = "needs_stack"
REPORTS = Path(__file__).resolve().parents[1] / "reports"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer what names the environment."""
    group = parser.getgroup("dify-kit", "what the smoke tests test")
    group.addoption(
        "--stack",
        default=os.environ.get("DIFY_KIT_STACK", "dev"),
        metavar="NAME",
        help="a deployed stack; its exports say where it is (default: dev, or DIFY_KIT_STACK)",
    )
    group.addoption("--url", metavar="URL", help="any Dify by its address, without Pulumi; needs an API key")
    group.addoption(
        "--api-key", metavar="KEY", help="key of a chat app; better: DIFY_API_KEY in the environment"
    )
    group.addoption("--api-key-file", metavar="FILE", help="file that holds the key of a chat app")
    group.addoption(
        "--allowed-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="with --url: an origin that may call /v1; repeatable",
    )
    group.addoption(
        "--insecure", action="store_true", help="accept any certificate, such as a self-signed one"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and write reports unless the caller chose where."""
    config.addinivalue_line(
        "markers", f"{NEEDS_STACK}: looks into the stack's containers, not only from outside"
    )
    if config.option.collectonly:
        return
    name = "url" if config.getoption("--url") else config.getoption("--stack")
    if not config.option.xmlpath:
        config.option.xmlpath = str(REPORTS / f"smoke-{name}.xml")
    if not getattr(config.option, "htmlpath", None):
        config.option.htmlpath = str(REPORTS / f"smoke-{name}.html")
        config.option.self_contained_html = True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --url leave out, and say so, what only a stack of our own can answer."""
    if not config.getoption("--url"):
        return
    left_out = [item for item in items if item.get_closest_marker(NEEDS_STACK)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def pytest_report_header(config: pytest.Config) -> str:
    """Say what is tested."""
    if url := config.getoption("--url"):
        return f"smoke tests of {url}; tests that look into containers are left out, they need --stack"
    return f"smoke tests of stack {config.getoption('--stack')}"


@pytest.fixture(scope="session")
def target(pytestconfig: pytest.Config) -> Target:
    """Return the environment under test; none is a failure, not a skip."""
    try:
        if url := pytestconfig.getoption("--url"):
            key = read_key(pytestconfig.getoption("--api-key"), pytestconfig.getoption("--api-key-file"))
            return from_address(url, key, tuple(pytestconfig.getoption("--allowed-origin")))
        return from_stack(pytestconfig.getoption("--stack"))
    except TargetError as problem:
        pytest.fail(str(problem), pytrace=False)


@pytest.fixture(scope="session")
def anonymous(target: Target, pytestconfig: pytest.Config) -> Iterator[httpx.Client]:
    """Lend a caller without a key."""
    with make_client(target.url, verify=not pytestconfig.getoption("--insecure")) as client:
        yield client


@pytest.fixture(scope="session")
def caller(target: Target, pytestconfig: pytest.Config) -> Iterator[httpx.Client]:
    """Lend a caller with the canary's key; the conversations it made are deleted at the end."""
    with make_client(target.url, verify=not pytestconfig.getoption("--insecure")) as client:
        client.auth = BearerKey(target.key)
        yield client
        _delete_conversations(client)


def _delete_conversations(client: httpx.Client) -> None:
    for _ in range(10):
        listed = client.get("/v1/conversations", params={"user": USER, "limit": 100})
        found: list[dict[str, Any]] = listed.json().get("data", []) if listed.is_success else []
        if not found:
            return
        for conversation in found:
            client.request("DELETE", f"/v1/conversations/{conversation['id']}", json={"user": USER})
