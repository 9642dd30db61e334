"""Smoke tests of a Dify that the kit did not deploy, and of one whose name DNS does not have yet."""

import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from smoke_tests.resolve import browser_rules, read_resolve, resolving
from tests.unit.smoke_upstream import ALLOWED, KEY, serving
from tests.unit.test_smoke_options import run

NAME = "dify.not-yet.example"
# What another edge does differently, or Dify by itself: nothing of it is a defect of Dify.
OTHER_EDGE = (
    *("any-host", "no-request-id", "html-413", "open-schema", "any-origin-connects"),
    *("reflects", "no-vary", "preflight-by-dify"),
)


def report(folder: Path) -> dict[str, Any]:
    (path,) = (folder / "reports").glob("*.json")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_another_edge_is_not_held_to_the_kits_promises(tmp_path: Path) -> None:
    with serving(*OTHER_EDGE) as upstream:
        done = run("--url", upstream.url, "--edge", "other", cwd=tmp_path, DIFY_API_KEY=KEY)
    found = report(tmp_path)
    reasons = " ".join(one["reason"] for one in found["notTested"])

    assert done.returncode == 0, done.stdout[-3000:]
    assert found["counts"]["passed"] >= 20
    assert "behind an edge that is not the kit's" in found["target"]
    assert "they test what the kit's edge adds, and --edge other was given" in reasons
    assert "they test which origins may call, and --edge other was given without --allowed-origin" in reasons


def test_another_edge_is_held_to_the_origins_that_were_given(tmp_path: Path) -> None:
    with serving(*OTHER_EDGE) as upstream:
        done = run(
            *("--url", upstream.url, "--edge", "other", "--allowed-origin", ALLOWED, "-k", "test_cors"),
            cwd=tmp_path,
            DIFY_API_KEY=KEY,
        )

    assert done.returncode == 1
    assert report(tmp_path)["counts"]["failed"] > 10


def test_another_edge_does_not_hide_a_defect_of_dify(tmp_path: Path) -> None:
    with serving(*OTHER_EDGE, "any-key", "unclaimed") as upstream:
        done = run("--url", upstream.url, "--edge", "other", cwd=tmp_path, DIFY_API_KEY=KEY)
    names = {
        test["name"]
        for group in report(tmp_path)["groups"]
        for test in group["tests"]
        if test["outcome"] == "failed"
    }

    assert done.returncode == 1
    assert {"test_the_instance_is_claimed", "test_other_credentials_get_difys_own_401[wrong-key]"} <= names


def test_a_name_without_dns_is_reached(tmp_path: Path) -> None:
    with serving() as upstream:
        port = urlsplit(upstream.url).port
        # The server answers requests for this host only.
        upstream.url = f"http://{NAME}:{port}"
        done = run(
            *("--url", upstream.url, "--resolve", f"{NAME}:{port}:127.0.0.1"),
            cwd=tmp_path,
            DIFY_API_KEY=KEY,
            http_proxy="http://127.0.0.1:1",
        )
        without = run(
            *("--url", upstream.url, "-k", "test_the_environment_answers"),
            cwd=tmp_path / "other",
            DIFY_API_KEY=KEY,
        )

    assert done.returncode == 0, done.stdout[-3000:]
    assert report(tmp_path)["counts"]["passed"] > 80
    assert without.returncode == 1
    assert "The name of the address does not resolve" in without.stdout


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"{NAME}:443:203.0.113.7", {(NAME, 443): "203.0.113.7"}),
        ("Dify.Example.com:8443:[2001:db8::7]", {("dify.example.com", 8443): "2001:db8::7"}),
        (f"{NAME}:443:2001:db8::7", {(NAME, 443): "2001:db8::7"}),
    ],
)
def test_addresses_are_read_as_curl_does(value: str, expected: dict[tuple[str, int], str]) -> None:
    assert read_resolve([value]) == expected


@pytest.mark.parametrize("value", ["", NAME, f"{NAME}:443", f"{NAME}:0:127.0.0.1", f"{NAME}:443:127.0.0.256"])
def test_a_wrong_address_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT:ADDRESS; for example"):
        read_resolve([value])


def test_other_names_and_ports_resolve_as_usual() -> None:
    usual = socket.getaddrinfo
    with resolving({(NAME, 443): "127.0.0.9"}):
        assert socket.getaddrinfo(NAME, 443)[0][4][0] == "127.0.0.9"
        assert socket.getaddrinfo(NAME.upper(), "443")[0][4][0] == "127.0.0.9"
        assert socket.getaddrinfo("127.0.0.1", 443)[0][4][0] == "127.0.0.1"
        with pytest.raises(socket.gaierror):
            socket.getaddrinfo(NAME, 80)
    assert socket.getaddrinfo is usual


def test_a_browser_gets_the_same_addresses() -> None:
    resolved = {(NAME, 443): "203.0.113.7", ("api.example", 80): "2001:db8::7"}

    assert browser_rules(resolved, NAME) == (
        f"MAP {NAME}:443 203.0.113.7:443, MAP api.example:80 [2001:db8::7]:80, MAP * ~NOTFOUND"
    )
    assert browser_rules({}, NAME) == f"MAP * ~NOTFOUND, EXCLUDE {NAME}"
