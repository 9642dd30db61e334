"""The ways into a deployed stack, from its exports; Pulumi's answer is made up."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

import dify_kit.commands.bench  # noqa: F401  # registers the command
from dify_kit.app import app
from dify_kit.benchmark import deployed
from dify_kit.workspace.files import StackFiles
from support.certificates import issue
from tests.unit.benchmark.server import KEY, Server

CLIENT_SECRET = "dks_not-to-be-shown"
TOKEN = "token-not-to-be-shown"


@pytest.fixture
def exports(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the stack exports; a test changes it before it calls the command."""
    found: dict[str, Any] = {
        "serviceApiUrl": server.url,
        "tls": {"ca": ""},
        "canary": {"name": "canary"},
        "canaryKey": KEY,
        "llm": {"url": server.url, "models": ["m-1", "m-2"]},
        "oauth": {"tokenUrl": f"{server.url}/oauth/token"},
        "oauthCanary": {"clientId": "canary", "clientSecret": CLIENT_SECRET},
    }
    monkeypatch.setattr(StackFiles, "open", lambda _stack: None)
    pulumi = SimpleNamespace(run=lambda *_: SimpleNamespace(stdout=json.dumps(found)))
    monkeypatch.setattr(deployed, "Pulumi", lambda **_: pulumi)
    return found


def bench(*options: str) -> Result:
    told = CliRunner().invoke(app, ["bench", "--stack", "dev", "--requests", "2", *options])
    for secret in (KEY, CLIENT_SECRET, TOKEN):
        assert secret not in told.output
    return told


@pytest.mark.usefixtures("exports")
def test_ways_are_measured_one_after_the_other(server: Server, tmp_path: Path) -> None:
    file, chart = tmp_path / "result.json", tmp_path / "chart.svg"
    ways = ("--via", "proxy", "--via", "api-key", "--via", "proxy", "--model", "m-2")

    told = bench(*ways, "--json", str(file), "--chart", str(chart))

    assert told.exit_code == 0, told.output
    assert [(one["target"], one["ok"]) for one in json.loads(file.read_text())] == [
        ("proxy", 2),
        ("api-key", 2),
    ]
    assert [body.get("model") for body in server.asked] == ["m-2"] * 4 + [None] * 4
    drawn = chart.read_text()
    assert ">proxy</text>" in drawn
    assert ">api-key</text>" in drawn
    assert "stack dev, " in drawn
    assert "concurrency 2, 2 requests for each way" in drawn
    assert not server.open


@pytest.mark.parametrize("exported", [True, False])
def test_given_ca_is_trusted_next_to_the_exported_one(
    server: Server, exports: dict[str, Any], exported: bool, tmp_path: Path
) -> None:
    authority, other = issue(ca=True, name="ca"), issue(ca=True, name="other")
    server.speak_tls(issue(["localhost"], issuer=authority), tmp_path)
    file = tmp_path / "given.pem"
    file.write_text(other.pem if exported else authority.pem)
    exports.update(serviceApiUrl=server.url, tls={"ca": authority.pem if exported else ""})

    told = bench("--via", "api-key", "--ca", str(file))

    assert told.exit_code == 0, told.output


@pytest.mark.usefixtures("exports")
def test_way_that_fails_does_not_hide_the_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BENCH_KEY", "another")
    file = tmp_path / "result.json"

    told = bench("--via", "proxy", "--via", "api-key", "--model", "m-1", "--json", str(file))

    assert told.exit_code == 1
    assert "proxy: no request succeeded" in told.output
    assert [one["errors"] for one in json.loads(file.read_text())] == [{"http_401": 2}, {}]


def test_token_is_asked_for_as_the_canary_client(
    server: Server, exports: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def post(url: str, *, data: dict[str, str], **_: Any) -> Any:
        asked.append((url, data["grant_type"], data["client_id"], data["client_secret"]))
        return SimpleNamespace(raise_for_status=lambda: None, json=lambda: {"access_token": KEY})

    monkeypatch.setattr(httpx, "post", post)

    told = bench("--via", "oauth")

    assert told.exit_code == 0, told.output
    assert asked == [(exports["oauth"]["tokenUrl"], "client_credentials", "canary", CLIENT_SECRET)]
    assert not server.open


@pytest.mark.parametrize(
    ("options", "change", "says"),
    [
        (["--via", "cable"], lambda _: None, "--via cable: not known"),
        (["--via", "api-key"], lambda found: found.clear(), "stack dev is not deployed"),
        (["--via", "api-key"], lambda found: found.update(canary=None), "no canary app"),
        (["--via", "oauth"], lambda found: found.update(oauth=None), "no OAuth canary"),
        # The server answers 401 to this, as a token endpoint does.
        (["--via", "oauth"], lambda _: None, "the token endpoint gave no token"),
        (["--via", "proxy"], lambda found: found.update(llm=None), "no LLM proxy"),
        (["--via", "proxy", "--model", "m-9"], lambda _: None, "did you mean m-1 or m-2?"),
    ],
)
def test_what_the_stack_has_not_is_named(
    server: Server,
    exports: dict[str, Any],
    options: list[str],
    change: Callable[[dict[str, Any]], None],
    says: str,
) -> None:
    change(exports)

    told = bench(*options)

    assert told.exit_code != 0
    assert says in told.output
    assert not [body for body in server.asked if "query" in body or "messages" in body]


def test_proxy_needs_a_key(exports: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_KEY")
    exports.clear()

    told = bench("--via", "proxy")

    assert told.exit_code == 2
    assert "BENCH_KEY has no usable key" in told.output
