"""The smoke tests with the browser's view in them: none of it may be left out here, over http as over https."""

import re

import pytest

from support.stacks import Done, Stack, free_port, settings_changed

pytestmark = pytest.mark.browser


# What the main stack does not have: tests of their own deploy it.
OFF = ("dify:oauth", "dify:llm.enabled", "dify:oidcGate.enabled")


def assert_whole(done: Done, *, without: str = OFF[0]) -> None:
    """Demand that all passed, the browser's tests among them, and that only what is off or `without` was left out."""
    assert done.code == 0, done.output[-5000:]
    assert re.search(r"\b[1-9]\d* passed", done.stdout)
    for line in (r"browser: Chromium \d+", r"smoke_tests/test_browser\.py \.{10}\s"):
        assert re.search(f"^{line}", done.stdout, re.MULTILINE), done.stdout[-5000:]
    left_out = [line for line in done.stdout.splitlines() if "not selected" in line]
    assert [line for line in left_out if not any(word in line for word in (*OFF, without))] == []


def test_smoke_tests_pass(stack: Stack) -> None:
    assert_whole(stack.smoke(), without="TLS")


def test_smoke_tests_pass_over_tls_too(stack: Stack) -> None:
    changes = {"httpsPort": str(free_port()), "tls.mode": "selfsigned", "tls.hstsSeconds": "300"}
    with settings_changed(stack, changes):
        stack.up()
        assert_whole(stack.smoke())
    stack.up()
