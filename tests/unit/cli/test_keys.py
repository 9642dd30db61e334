"""Keys of the LLM proxy on the command line: where they come from, what is shown, where they never are."""

import json
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from dify_kit.__main__ import app
from dify_kit.commands import keys, up, usage
from dify_kit.errors import KitError
from dify_kit.stack import callers, llm_usage, upstreams
from infra.catalogue.llm_presets import PRESETS
from infra.settings import llm_upstreams, proxy_keys
from support.serving import served
from tests.guide_blocks import named
from tests.unit.cli.conftest import Machine
from tests.unit.test_guide_blocks import rehearsed

KEY = "hs-0123456789-0123456789-wxyz"
MASKED = "hs-01234...wxyz"


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def words(done: Result) -> str:
    """Return what was said, with lines that were wrapped put together."""
    return " ".join(done.stderr.split())


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
        ("h", "has 1 character, and a key of holysheep has 20 or more"),
        ("", "no key for upstream holysheep: standard input was empty"),
        ("a b" * 9, "no key has"),
    ],
)
def test_a_key_that_cannot_be_right_is_not_stored(machine: Machine, key: str, said: str) -> None:
    machine.configure()

    done = run("keys", "set", "holysheep", "--stdin", stdin=f"{key}\n")

    assert done.exit_code == 1
    assert said in done.stderr
    assert len(key) < 2 or key not in done.output
    assert machine.calls() == []


def test_an_unknown_upstream_is_told(machine: Machine) -> None:
    machine.configure(llm={"upstreams": {"mine": {"baseUrl": "http://llm:1"}}})

    done = run("keys", "set", "holysheep", "--stdin", stdin=KEY)

    assert (done.exit_code, "did you mean mine?" in done.stderr) == (2, True)


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
    with served(Models) as url:
        asked = Asked(url=f"{url}/v1")
        yield asked


def test_check_asks_for_models(machine: Machine, upstream: Asked) -> None:
    machine.configure(
        llm={"upstreams": {"own": {"baseUrl": upstream.url}, "other": {"baseUrl": upstream.url}}}
    )
    have(machine, {"own": KEY, "other": "wrong-key-0123456789-0123"})

    done = run("keys", "check", "--json")

    assert done.exit_code == 1
    other, own = json.loads(done.stdout)  # YAML sorted them
    assert own == {"upstream": "own", "ok": True, "models": ["gpt-4.1"], "missing": []}
    assert "refuses the key (401)" in other["problem"]
    assert upstream.headers[1] == ("/v1/models", f"Bearer {KEY}")
    assert KEY not in done.output
    assert "wrong-key" not in done.output
    assert run("keys", "check", "own").exit_code == 0


def test_check_names_a_model_that_the_upstream_does_not_list(machine: Machine, upstream: Asked) -> None:
    machine.configure(
        llm={
            "enabled": True,
            "upstreams": {"own": {"baseUrl": upstream.url}},
            "models": {"gpt-4.1": ["own"], "cheap": ["own:gpt-4.11"]},
        }
    )
    have(machine, {"own": KEY})

    done = run("keys", "check", "--json")

    assert done.exit_code == 0
    assert json.loads(done.stdout)[0]["missing"] == ["gpt-4.11"]
    assert "its list of models does not have gpt-4.11" in words(done)
    assert "gpt-4.1?" in words(done)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "0.0.0.0"])  # noqa: S104  # it is refused
@pytest.mark.parametrize("bridge", ["", "172.30.0.1"])
def test_check_refuses_what_is_this_machine_only_from_here(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, host: str, bridge: str
) -> None:
    monkeypatch.setattr(upstreams, "_bridge", lambda: bridge)
    machine.configure(llm={"upstreams": {"own": {"baseUrl": f"http://{host}:11434/v1"}}})
    have(machine, {"own": KEY})

    done = run("keys", "check")

    assert done.exit_code == 1
    assert "is nginx's own container, not this machine" in done.stderr
    assert words(done).count("Docker's bridge") == 1
    assert ("on this machine it is 172.30.0.1" in words(done)) is bool(bridge)
    assert ("hint:" in done.stderr) is bool(bridge)


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


LLM = {"enabled": True, "models": {"m": ["holysheep"]}, "embeddings": {"e": ["holysheep"]}}


def test_issue_prints_the_key_once_and_keeps_a_hash(machine: Machine) -> None:
    machine.configure(llm=LLM)

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


@pytest.mark.parametrize(
    ("budget", "warned"), [(("--budget", "5"), True), (("--budget", "0"), False), ((), False)]
)
def test_issue_warns_at_once_of_models_that_a_budget_cannot_count(
    machine: Machine, budget: tuple[str, ...], warned: bool
) -> None:
    machine.configure(llm=LLM)

    first = run("keys", "issue", "first", *budget)
    second = run("keys", "issue", "second", "--model", "e")

    said = words(first)
    assert first.exit_code == 0
    assert len(first.stdout.split()) == 1
    assert ("proxy key first: m has no price, and the key has a budget" in said) is warned
    assert ("proxy key first: e has no price" in said) is warned
    assert "proxy key" not in second.stderr, "it is about the key that was issued"


def test_revoke(machine: Machine) -> None:
    machine.configure(llm=LLM)
    assert not callers.have_keys(machine.files())
    first = run("keys", "issue", "web").stdout

    assert run("keys", "issue", "web").exit_code == 1
    assert callers.have_keys(machine.files())
    assert run("keys", "revoke", "web").exit_code == 0
    assert not callers.have_keys(machine.files())
    assert run("keys", "revoke", "web").exit_code == 1
    assert run("keys", "issue", "web").stdout != first
    assert [line.split("\t")[2] for line in run("keys", "list").stdout.splitlines()] == ["revoked", "valid"]


def test_limits_change_by_the_guides_commands(machine: Machine, tmp_path: Path) -> None:
    machine.configure(llm={"enabled": True})
    *change, up = rehearsed(
        named("docs/guides/llm-proxy.md", "sh", "dify-kit keys revoke mobile-app"), tmp_path
    )
    first = run("keys", "issue", "mobile-app", "--budget", "50", "--days", "90").stdout

    done = [run(*words[1:]) for words in change]

    assert [one.exit_code for one in done] == [0, 0], [one.output for one in done]
    assert done[-1].stdout not in {"", first}
    old, new = json.loads(run("keys", "list", "--json").stdout)
    assert (old["state"], old["budget"]) == ("revoked", 50)
    assert (new["state"], new["budget"], new["requestsPerMinute"]) == ("valid", 100, 120)
    assert up == ["make", "up"]


@pytest.mark.parametrize("name", ["", "Web", "a b", "x" * 41, "../x"])
def test_names_that_cannot_be_used(machine: Machine, name: str) -> None:
    machine.configure(llm=LLM)

    assert run("keys", "issue", name).exit_code == 2
    assert not (machine.home / "stacks" / "proxy-keys.dev.json").exists()


def test_a_damaged_file_is_not_overwritten(machine: Machine) -> None:
    machine.configure(llm=LLM)
    path = machine.home / "stacks" / "proxy-keys.dev.json"
    path.write_text("{")

    for command in (("issue", "web"), ("list",), ("revoke", "web")):
        done = run("keys", *command)
        assert (done.exit_code, "proxy-keys.dev.json" in done.stderr) == (1, True)
    assert path.read_text() == "{"


@pytest.mark.parametrize(
    "command",
    [("issue", "web"), ("list",), ("revoke", "web"), ("check",), ("show",), ("set", "holysheep", "--stdin")],
)
def test_a_stack_that_does_not_exist_has_no_keys(machine: Machine, command: tuple[str, ...]) -> None:
    done = run("keys", *command, "--stack", "nosuch")

    assert done.exit_code == 1
    assert "stack nosuch does not exist on this machine" in done.stderr
    assert not (machine.home / "stacks" / "proxy-keys.nosuch.json").exists()


@pytest.mark.parametrize("llm", [{}, {"llm": {"enabled": False}}, {"llm": '{"enabled": false}'}])
def test_no_key_is_issued_while_the_proxy_is_off(machine: Machine, llm: dict[str, Any]) -> None:
    machine.configure(**llm)

    done = run("keys", "issue", "web")

    assert (done.exit_code, done.stdout) == (1, "")
    assert "the LLM proxy of stack dev is off" in done.stderr
    assert "dify-kit set llm.enabled true --stack dev" in done.stderr
    assert not (machine.home / "stacks" / "proxy-keys.dev.json").exists()


def test_no_key_is_issued_for_a_model_that_is_not_served(machine: Machine) -> None:
    machine.configure(llm={**LLM, "models": {"gpt-4.1": ["holysheep"]}})

    done = run("keys", "issue", "web", "--model", "e", "--model", "gpt-4-1")

    assert (done.exit_code, done.stdout) == (2, "")
    assert "--model gpt-4-1: dify:llm.models has no such model" in done.stderr
    assert "did you mean gpt-4.1? served: gpt-4.1, e" in done.stderr
    assert not (machine.home / "stacks" / "proxy-keys.dev.json").exists()
    assert run("keys", "issue", "web", "--model", "e", "--model", "gpt-4.1").exit_code == 0


def test_every_model_is_served_by_default(machine: Machine) -> None:
    machine.configure(llm={"enabled": True})

    assert run("keys", "issue", "web", "--model", "gpt-4.1").exit_code == 0


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
    served = {"2026-01": {"first": {"requests": 1200, "tokens_in": 5000, "tokens_out": 7, "cost": 1.5000004}}}
    monkeypatch.setattr(
        usage, "document", lambda _: {"months": MONTHS, "upstreams": failures, "served": served}
    )
    monkeypatch.setenv("COLUMNS", "200")

    table = run("usage").stdout

    rows = [
        re.split(r" {2,}", line.strip())
        for line in table.splitlines()
        if re.match(r" *(key:|all|first)", line)
    ]
    assert rows == [
        ["key:app", "gpt-4.1", "0", "3", "0", "0", "0", "$0.0000"],
        ["key:web", "gpt-4.1", "1,200", "0", "2", "5,000", "7", "$1.5000"],
        ["all", "1,200", "3", "2", "5,000", "7", "$1.5000"],
        ["first", "200, an error or nothing", "1"],
        ["first", "502", "1,200"],
    ]
    of_upstream = {"requests": 1200, "tokens_in": 5000, "tokens_out": 7, "cost": 1.5}
    assert json.loads(run("usage", "--upstreams", "--json").stdout) == {
        "2026-01": {"first": {**of_upstream, "failures": {"502": 1200, "200": 1}}}
    }
    lines = [re.split(r" {2,}", line.strip()) for line in run("usage", "--upstreams").stdout.splitlines()]
    assert [line for line in lines if line[0] == "first"] == [
        ["first", "1,200", "5,000", "7", "$1.5000"],
        ["first", "200, an error or nothing", "1"],
        ["first", "502", "1,200"],
    ]
    assert json.loads(run("usage", "--json").stdout) == MONTHS
    assert json.loads(run("usage", "--json", "--month", "2025-12").stdout) == {"2025-12": MONTHS["2025-12"]}
    assert "nothing was used in 2024-01" in run("usage", "--month", "2024-01").stderr


def test_usage_without_failures_says_so(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.configure()
    monkeypatch.setattr(usage, "document", lambda _: {"months": MONTHS, "upstreams": {}, "served": {}})

    done = run("usage", "--upstreams")

    assert (done.exit_code, done.stdout) == (0, "")
    assert "no upstream served or failed in 2026-01" in done.stderr


def test_costs_in_json_have_six_decimals(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.configure()
    numbers = {"requests": 3, "cost": 0.1 + 0.2 + 0.00000049}
    months = {"2026-01": {"key:web": {"cost": numbers}}}
    monkeypatch.setattr(usage, "document", lambda _: {"months": months, "upstreams": {}, "served": {}})

    shown = json.loads(run("usage", "--json").stdout)

    # A model may be called like a number.
    assert shown == {"2026-01": {"key:web": {"cost": {"requests": 3, "cost": 0.3}}}}


def test_usage_fits_80_columns_and_breaks_no_number(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.configure()
    most = {
        "requests": 987_654_321, "failed": 7_654_321, "estimated": 1_234_567, "tokens_in": 98_765_432_109,
        "tokens_out": 9_876_543_210, "cost": 1_234_567.891,
    }  # fmt: skip
    callers = {"key:the-web-frontend-of-production": {"claude-opus-4-1-20250805-thinking": most}}
    monkeypatch.setattr(
        usage, "document", lambda _: {"months": {"2026-01": callers}, "upstreams": {}, "served": {}}
    )
    monkeypatch.setenv("COLUMNS", "80")

    table = run("usage").stdout

    assert max(map(len, table.splitlines())) <= 80
    for number in ("987.65M", "7.65M", "1.23M", "98.77G", "9.88G", "$1,234,568"):
        assert table.count(f" {number}") == 2, number
    # Names may be broken, no character of them is lost.
    rule = next(number for number, line in enumerate(table.splitlines()) if "─" in line)
    words = [line[:13].strip() for line in table.splitlines()[rule + 1 :]]
    assert "".join(words).startswith("key:the-web-frontend-of-production")


def test_usage_of_what_is_not_deployed(machine: Machine) -> None:
    machine.configure()

    done = run("usage")

    assert (done.exit_code, "is not deployed" in done.stderr) == (1, True)
    with pytest.raises(KitError):
        llm_usage.document(machine.files())
    assert run("usage", "reset", "key:web").exit_code == 1


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        ((), "limits of dify:llm"),
        (
            (
                "--budget",
                "5",
                "--requests-per-minute",
                "30",
                "--concurrent",
                "2",
                "--model",
                "m",
                "--internal",
            ),
            "$5 a month; 30 requests a minute; 2 at a time; only m; inside the stack only",
        ),
        (
            ("--budget", "0", "--requests-per-minute", "0", "--concurrent", "0"),
            "no budget; any requests a minute; any at a time",
        ),
    ],
)
def test_the_list_has_the_limits_of_each_key(machine: Machine, options: tuple[str, ...], limits: str) -> None:
    machine.configure(llm={"enabled": True, "models": {"m": ["holysheep"]}})
    assert run("keys", "issue", "web", *options).exit_code == 0

    [line] = run("keys", "list").stdout.splitlines()

    assert line.split("\t")[3:] == ["for ever", limits]
