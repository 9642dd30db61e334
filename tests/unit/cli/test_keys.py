"""Keys of the LLM proxy on the command line: where they come from, what is shown, where they never are."""

import json
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dify_kit.__main__ import app
from dify_kit.commands import keys, up, usage
from dify_kit.errors import KitError
from infra.catalogue.llm_presets import PRESETS
from infra.settings import llm_upstreams, proxy_keys
from tests.unit.cli.conftest import Machine

KEY = "hs-0123456789-0123456789-wxyz"
MASKED = "hs-01234...wxyz"


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for preset in PRESETS.values():
        monkeypatch.delenv(preset.variable, raising=False)


def have(machine: Machine, found: dict[str, str]) -> None:
    """Let Pulumi tell these keys."""
    entry = {"value": json.dumps(found), "objectValue": found, "secret": True}
    machine.play(config={"stdout": json.dumps({"dify:llmKeys": entry})})


# --- where a key comes from --------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["variable", "stdin"])
def test_set_hands_the_key_over_by_standard_input(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    machine.configure()
    if source == "variable":
        monkeypatch.setenv("HOLYSHEEP_API_KEY", f" {KEY}\n")

    done = run("keys", "set", "holysheep", *(["--stdin"] if source == "stdin" else []), stdin=f"{KEY}\n")

    assert done.exit_code == 0, done.output
    (call,) = machine.calls("config", "set")
    assert call["args"][:5] == ["config", "set", "--secret", "--path", "dify:llmKeys.holysheep"]
    assert KEY not in json.dumps(call)
    assert (machine.fake / "stdin").read_text() == KEY
    assert MASKED in done.stderr
    assert KEY not in done.output


def test_a_missing_key_names_variable_and_registration(machine: Machine) -> None:
    machine.configure()

    done = run("keys", "set", "holysheep")

    assert done.exit_code == 1
    assert "HOLYSHEEP_API_KEY is not set" in done.stderr
    assert "https://www.holysheep.ai/register" in done.stderr
    assert machine.calls() == []


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("hs-short", "20 or more"),
        (f"sk-ant-{'k' * 40}", "a key of anthropic"),
        ("", "no key"),
        ("a b" * 9, "no key has"),
    ],
)
def test_a_key_that_cannot_be_right_is_not_stored(machine: Machine, key: str, said: str) -> None:
    machine.configure()

    done = run("keys", "set", "holysheep", "--stdin", stdin=f"{key}\n")

    assert done.exit_code == 1
    assert said in done.stderr
    assert not key or key not in done.output
    assert machine.calls() == []


def test_an_unknown_upstream_is_told(machine: Machine) -> None:
    machine.configure(llm={"upstreams": {"mine": {"baseUrl": "http://llm:1"}}})

    done = run("keys", "set", "holysheep", "--stdin", stdin=KEY)

    assert (done.exit_code, "upstreams: mine" in done.stderr) == (2, True)


def test_show_masks(machine: Machine) -> None:
    machine.configure(llm={"upstreams": {"holysheep": {}, "openai": {}, "own": {"baseUrl": "http://llm/v1"}}})
    have(machine, {"holysheep": KEY, "own": "short-one"})

    done = run("keys", "show")
    rows = json.loads(run("keys", "show", "--json").stdout)

    assert [line.split("\t")[-1] for line in done.stdout.splitlines()] == [MASKED, "not set", "********"]
    assert [row["key"] for row in rows] == [MASKED, "", "********"]
    assert KEY not in done.output


# --- asking upstreams --------------------------------------------------------------------------------------------


@dataclass
class Asked:
    """An upstream on this machine, and what it was asked."""

    url: str
    headers: list[Any] = field(default_factory=list)


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    # It stands for one that is elsewhere.
    class Models(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.headers.append((self.path, self.headers["Authorization"]))
            good = self.headers["Authorization"] == f"Bearer {KEY}"
            body = json.dumps(
                {"data": [{"id": "gpt-4.1"}]} if good else {"error": self.headers["Authorization"]}
            )
            self.send_response(200 if good else 401)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(llm_upstreams, "is_loopback", lambda _: False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Models)
    asked = Asked(url=f"http://127.0.0.1:{server.server_port}/v1")
    threading.Thread(target=server.serve_forever).start()
    yield asked
    server.shutdown()
    server.server_close()


def test_check_asks_for_models(machine: Machine, upstream: Asked) -> None:
    machine.configure(
        llm={"upstreams": {"own": {"baseUrl": upstream.url}, "other": {"baseUrl": upstream.url}}}
    )
    have(machine, {"own": KEY, "other": "wrong-key-0123456789-0123"})

    done = run("keys", "check", "--json")

    assert done.exit_code == 1
    other, own = json.loads(done.stdout)  # YAML sorted them
    assert own == {"upstream": "own", "ok": True, "models": ["gpt-4.1"]}
    assert "refuses the key (401)" in other["problem"]
    assert upstream.headers[1] == ("/v1/models", f"Bearer {KEY}")
    assert KEY not in done.output
    assert "wrong-key" not in done.output
    assert run("keys", "check", "own").exit_code == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "0.0.0.0"])  # noqa: S104  # it is refused
def test_check_refuses_what_is_this_machine_only_from_here(machine: Machine, host: str) -> None:
    machine.configure(llm={"upstreams": {"own": {"baseUrl": f"http://{host}:11434/v1"}}})
    have(machine, {"own": KEY})

    done = run("keys", "check")

    assert done.exit_code == 1
    assert "is nginx's own container, not this machine" in done.stderr
    assert "Docker's bridge" in done.stderr


def test_check_of_nobody_ends(machine: Machine) -> None:
    machine.configure(
        llm={
            "upstreams": {
                "own": {"baseUrl": "https://127.1.1.9.invalid:9/v1"},
                "none": {"baseUrl": "http://x"},
            }
        }
    )
    have(machine, {"own": KEY})

    done = run("keys", "check")

    assert done.exit_code == 1
    assert "cannot be reached" in done.stderr
    assert "none has no key" in done.stderr


def test_rotate_tries_the_key_first(
    machine: Machine, upstream: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.configure(llm={"upstreams": {"own": {"baseUrl": upstream.url}}})
    have(machine, {"own": "the-old-key-0123456789"})
    deployed: list[str] = []
    monkeypatch.setattr(up, "up", lambda **options: deployed.append(options["stack"]))
    left = [2, 1, 0]
    monkeypatch.setattr(keys, "_old_workers", lambda _: left.pop(0))

    wrong = run("keys", "rotate", "own", "--stdin", stdin="another-key-0123456789")
    assert wrong.exit_code == 1
    assert machine.calls("config", "set") == []
    right = run("keys", "rotate", "own", "--stdin", stdin=KEY)

    assert right.exit_code == 0, right.output
    assert len(machine.calls("config", "set")) == 1
    assert deployed == ["dev"]
    assert left == []
    assert "no longer used" in right.stderr


def test_rotate_says_when_the_old_key_is_still_used(
    machine: Machine, upstream: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.configure(llm={"upstreams": {"own": {"baseUrl": upstream.url}}})
    have(machine, {})
    monkeypatch.setattr(up, "up", lambda **_: None)
    monkeypatch.setattr(keys, "_old_workers", lambda _: 1)

    done = run("keys", "rotate", "own", "--stdin", "--wait", "0", stdin=KEY)

    assert done.exit_code == 0
    assert "1 worker(s) of nginx still finish streams" in done.stderr
    have(machine, {"own": KEY})
    assert "has this key already" in run("keys", "rotate", "own", "--stdin", stdin=KEY).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("signing", "--stdin"),
        ("signing", "--wait", "1"),
        ("holysheep", "--no-overlap"),
        ("holysheep", "--json"),
    ],
)
def test_options_of_the_other_kind_are_refused(machine: Machine, arguments: tuple[str, ...]) -> None:
    machine.configure()

    assert run("keys", "rotate", *arguments, stdin=KEY).exit_code == 2
    assert machine.calls() == []


# --- keys for callers --------------------------------------------------------------------------------------------


def test_issue_prints_the_key_once_and_keeps_a_hash(machine: Machine) -> None:
    machine.configure()

    done = run("keys", "issue", "web", "--days", "3", "--budget", "5", "--model", "m", "--concurrent", "0")

    assert done.exit_code == 0, done.output
    secret = done.stdout.strip()
    assert len(secret) == len(proxy_keys.PREFIX) + proxy_keys.RANDOM_CHARACTERS
    path = machine.home / "stacks" / "proxy-keys.dev.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret not in path.read_text()
    (kept,) = proxy_keys.read(path)
    assert (kept.budget, kept.models, kept.concurrent, kept.requests_per_minute) == (5.0, ("m",), 0, None)
    (row,) = json.loads(run("keys", "list", "--json").stdout)
    assert (row["name"], row["state"], row["prefix"]) == ("web", "valid", secret[:10])


def test_revoke(machine: Machine) -> None:
    machine.configure()
    first = run("keys", "issue", "web").stdout

    assert run("keys", "issue", "web").exit_code == 1
    assert run("keys", "revoke", "web").exit_code == 0
    assert run("keys", "revoke", "web").exit_code == 1
    assert run("keys", "issue", "web").stdout != first
    assert [line.split("\t")[2] for line in run("keys", "list").stdout.splitlines()] == ["revoked", "valid"]


@pytest.mark.parametrize("name", ["", "Web", "a b", "x" * 41, "../x"])
def test_names_that_cannot_be_used(machine: Machine, name: str) -> None:
    machine.configure()

    assert run("keys", "issue", name).exit_code == 2
    assert not (machine.home / "stacks" / "proxy-keys.dev.json").exists()


def test_a_damaged_file_is_not_overwritten(machine: Machine) -> None:
    machine.configure()
    path = machine.home / "stacks" / "proxy-keys.dev.json"
    path.write_text("{")

    for command in (("issue", "web"), ("list",), ("revoke", "web")):
        done = run("keys", *command)
        assert (done.exit_code, "proxy-keys.dev.json" in done.stderr) == (1, True)
    assert path.read_text() == "{"


# --- usage -------------------------------------------------------------------------------------------------------

MONTHS = {
    "2025-12": {"key:web": {"m": {"requests": 1, "tokens_in": 1}}},
    "2026-01": {
        "key:web": {
            "gpt-4.1": {"requests": 1200, "tokens_in": 5000, "tokens_out": 7, "cost": 1.5, "estimated": 2}
        },
        "key:app": {"gpt-4.1": {"failed": 3}},
    },
}


def test_usage_as_a_table_and_as_json(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.configure()
    failures = {"2026-01": {"first": {"502": 1200, "200": 1}}}
    monkeypatch.setattr(usage, "document", lambda _: {"months": MONTHS, "upstreams": failures})
    monkeypatch.setenv("COLUMNS", "200")

    table = run("usage").stdout

    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if "│" in line]
    assert rows == [
        ["key:app", "gpt-4.1", "0", "3", "0", "0", "0", "$0.0000"],
        ["key:web", "gpt-4.1", "1,200", "0", "2", "5,000", "7", "$1.5000"],
        ["all", "", "1,200", "3", "2", "5,000", "7", "$1.5000"],
        ["first", "200, an error or nothing", "1"],
        ["first", "502", "1,200"],
    ]
    assert json.loads(run("usage", "--upstreams", "--json").stdout) == failures
    assert json.loads(run("usage", "--json").stdout) == MONTHS
    assert json.loads(run("usage", "--json", "--month", "2025-12").stdout) == {"2025-12": MONTHS["2025-12"]}
    assert "nothing was used in 2024-01" in run("usage", "--month", "2024-01").stderr


def test_usage_of_what_is_not_deployed(machine: Machine) -> None:
    machine.configure()

    done = run("usage")

    assert (done.exit_code, "is not deployed" in done.stderr) == (1, True)
    with pytest.raises(KitError):
        usage.document(machine.files())
    assert run("usage", "reset", "key:web").exit_code == 1
