"""docs/guides/clients.md: every program on the page works, also on a bad day."""

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from tests.clients_environment import GUIDE, Versions, pins
from tests.clients_guide import Program, programs, run, run_by_clock, save
from tests.unit.clients_upstream import MODEL_KEY, Day, serving_clients
from tests.unit.smoke_oauth_upstream import CLIENT, SECRET
from tests.unit.smoke_upstream import KEY

WITH_KEY = {"DIFY_API_KEY": KEY}
WITH_OAUTH = {"DIFY_CLIENT_ID": CLIENT, "DIFY_CLIENT_SECRET": SECRET}
BY_NAME = {program.name: program for program in programs()}
# Programs that take either way in; what fetch and bash measure cannot be given another clock.
BOTH = ("dify_client.py", "dify_async.py", "dify.mjs")
OAUTH = (*BOTH, "ask-oauth.sh")


def variables(day: Day, way: dict[str, str]) -> dict[str, str]:
    """Return all variables that the guide names, with one way in."""
    model = {"OPENAI_BASE_URL": f"{day.url}/llm/v1", "OPENAI_API_KEY": MODEL_KEY}
    return {"DIFY_URL": day.url, **way, **model}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The programs, saved."""
    save(tmp_path)
    return tmp_path


@dataclass(frozen=True, kw_only=True)
class Client:
    """A Python client of the page, called with a clock that moves only when it sleeps."""

    kind: str
    folder: Path
    versions: Versions = "pinned"

    def call(self, day: Day, way: dict[str, str], *steps: tuple[str, int]) -> dict[str, Any]:
        """Take the steps with one connection; return answers, sleeps, seconds and the error."""
        return run_by_clock(self.kind, steps, self.folder, variables(day, way), self.versions)


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, folder: Path) -> Client:
    return Client(kind=request.param, folder=folder)


def ways(program: Program) -> list[dict[str, str]]:
    """Return the ways in that a program has: it names their variables."""
    found = [way for way in (WITH_KEY, WITH_OAUTH) if all(name in program.text for name in way)]
    return found or [{}]


def test_each_package_that_the_python_programs_import_is_pinned() -> None:
    assert {"Authlib", "httpx2", "limits", "openai", "tenacity"} == set(pins())


def test_every_block_of_the_page_is_a_program_with_a_name_of_its_own() -> None:
    fences = re.findall(r"^[ >]*(?:```|~~~).*$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)

    assert len(fences) == 2 * len(programs())
    assert len(BY_NAME) == len(programs()) >= 7


# What packages decide is in a function: tests/newest/ checks it with the newest packages.


def check_answer(program: Program, way: dict[str, str], folder: Path, versions: Versions = "pinned") -> None:
    """Run a program with one way in, and check what it prints and sends."""
    with serving_clients() as day:
        done = run(program, folder, variables(day, way), versions)

    assert done.returncode == 0, done.stderr
    assert "You said: Good morning" in done.stdout
    assert not done.stderr
    expected = {"": {MODEL_KEY}, "DIFY_API_KEY": {KEY}, "DIFY_CLIENT_ID": set(day.tokens)}
    assert set(day.bearers) == expected[next(iter(way), "")]
    assert len(day.tokens) == (1 if way == WITH_OAUTH else 0)
    if any(body.get("response_mode") == "streaming" for _, body in day.requests):
        assert "\N{EM DASH} 好" in done.stdout
    for secret in (KEY, SECRET, MODEL_KEY, *day.tokens):
        assert secret not in done.stdout


def check_renewal(name: str, folder: Path, versions: Versions = "pinned") -> None:
    """Revoke a program's first token, and check that it gets one more."""
    with serving_clients(revoked=1) as day:
        done = run(BY_NAME[name], folder, variables(day, WITH_OAUTH), versions)

    assert done.returncode == 0, done.stderr
    assert "You said: Good morning" in done.stdout
    # One for both questions that dify_async.py asks at the same time.
    assert len(day.tokens) == 2
    assert day.bearers[-1] == day.tokens[-1]


def check_early_renewal(client: Client, life: int, tokens: int) -> None:
    """Call with a first token of so many seconds, and check how many tokens the calls take."""
    # However many tasks of asyncio wait for it, one token.
    step, number = ("ask", 1) if client.kind == "sync" else ("together", 3)
    with serving_clients(lives=[life]) as day:
        found = client.call(day, WITH_OAUTH, ("ask", 1), ("later", 2), (step, number))

    assert found["error"] == ""
    assert len(found["answers"]) == 1 + number
    assert len(day.tokens) == tokens
    assert day.bearers == [day.tokens[0], *[day.tokens[-1]] * number]


def check_waits(client: Client, way: dict[str, str]) -> None:
    """Refuse twice, and check that the client sleeps as long as each refusal says."""
    refusals = [(429, {"Retry-After": "13"}), (503, {"Retry-After": "7"})]
    with serving_clients(refusals=refusals) as day:
        found = client.call(day, way, ("ask", 1))

    assert found["answers"][0].startswith("You said: Number 0")
    assert found["slept"] == [13, 7]


@pytest.mark.parametrize(
    ("program", "way"),
    [(program, way) for program in programs() for way in ways(program)],
    ids=lambda value: value.name if isinstance(value, Program) else "-".join(value),
)
def test_every_program_of_the_page_answers(program: Program, way: dict[str, str], folder: Path) -> None:
    check_answer(program, way, folder)


@pytest.mark.parametrize("name", OAUTH)
def test_revoked_token_is_renewed_once(name: str, folder: Path) -> None:
    check_renewal(name, folder)


@pytest.mark.parametrize("name", OAUTH)
def test_second_401_is_the_answer(name: str, folder: Path) -> None:
    with serving_clients(revoked=50) as day:
        done = run(BY_NAME[name], folder, variables(day, WITH_OAUTH))

    assert done.returncode != 0
    assert "401" in done.stderr or "invalid_token" in done.stderr
    # dify_async.py asks two questions at the same time, and stops at the first that fails.
    assert len(day.requests) <= (4 if name == "dify_async.py" else 2)


@pytest.mark.parametrize("name", ["ask.sh", "stream.sh", "dify.mjs", "dify_client.py"])
def test_refused_key_is_an_error(name: str, folder: Path) -> None:
    with serving_clients() as day:
        done = run(BY_NAME[name], folder, variables(day, {"DIFY_API_KEY": "app-unknown"}))

    assert done.returncode != 0
    assert "401" in done.stderr
    assert day.tokens == []


DIFYS = "Access token is invalid"


@pytest.mark.parametrize("name", ["ask.sh", "stream.sh"])
def test_shell_programs_show_the_message_of_dify(name: str, folder: Path) -> None:
    with serving_clients() as day:
        done = run(BY_NAME[name], folder, variables(day, {"DIFY_API_KEY": "app-unknown"}))

    assert done.returncode != 0
    assert DIFYS in done.stderr.splitlines(), done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("name", ["ask-oauth.sh", "dify.mjs"])
def test_program_waits_as_long_as_it_is_told(name: str, status: int, folder: Path) -> None:
    with serving_clients(refusals=[(status, {"Retry-After": "1"})]) as day:
        started = time.monotonic()
        done = run(BY_NAME[name], folder, variables(day, WITH_OAUTH))
        took = time.monotonic() - started

    assert done.returncode == 0, done.stderr
    assert took >= 1
    assert len(day.tokens) == 1


@pytest.mark.parametrize("name", OAUTH)
def test_token_endpoint_may_be_away_for_a_second(name: str, folder: Path) -> None:
    with serving_clients(token_refusals=[(503, {"Retry-After": "1"})]) as day:
        done = run(BY_NAME[name], folder, variables(day, WITH_OAUTH))

    assert done.returncode == 0, done.stderr
    assert "You said: Good morning" in done.stdout
    assert set(day.bearers) == set(day.tokens)


@pytest.mark.parametrize("status", [400, 500, 502, 504])
@pytest.mark.parametrize("name", ["ask.sh", "ask-oauth.sh", "dify.mjs", "dify_client.py"])
def test_what_dify_may_have_done_is_not_sent_again(name: str, status: int, folder: Path) -> None:
    way = WITH_OAUTH if name == "ask-oauth.sh" else WITH_KEY
    with serving_clients(refusals=[(status, {"Retry-After": "0"})]) as day:
        done = run(BY_NAME[name], folder, variables(day, way))

    assert done.returncode != 0
    assert len(day.requests) == 1


@pytest.mark.parametrize(("lives", "tokens"), [((300,), 2), ((310,), 1)])
def test_javascript_renews_300_seconds_early(lives: tuple[int, ...], tokens: int, folder: Path) -> None:
    """Its two calls follow each other within a second or two."""
    with serving_clients(lives=list(lives)) as day:
        done = run(BY_NAME["dify.mjs"], folder, variables(day, WITH_OAUTH))

    assert done.returncode == 0, done.stderr
    # The call that fetched a token uses it, however short it lives.
    assert len(day.tokens) == tokens
    assert day.bearers == [day.tokens[0], day.tokens[-1]]


@pytest.mark.parametrize(("life", "tokens"), [(301, 2), (302 + 60, 1)])
def test_python_renews_300_seconds_early(life: int, tokens: int, client: Client) -> None:
    check_early_renewal(client, life, tokens)


@pytest.mark.parametrize("way", [WITH_KEY, WITH_OAUTH], ids=["key", "oauth"])
def test_python_waits_as_long_as_it_is_told(way: dict[str, str], client: Client) -> None:
    check_waits(client, way)


def test_retry_after_may_be_a_date(client: Client) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    with serving_clients(refusals=[(503, {"Retry-After": date})]) as day:
        found = client.call(day, WITH_KEY, ("ask", 1))

    (slept,) = found["slept"]
    assert 25 < slept <= 40


def test_python_gives_up_after_five_tries_and_shows_the_answer(client: Client) -> None:
    with serving_clients(refusals=[(429, {"Retry-After": "1"})] * 9) as day:
        found = client.call(day, WITH_KEY, ("ask", 1))

    assert found["error"].startswith("HTTPStatusError: ")
    assert "429" in found["error"]
    assert found["slept"] == [1] * 4
    assert len(day.requests) == 5


def test_python_does_not_wait_for_hours(client: Client) -> None:
    with serving_clients(refusals=[(429, {"Retry-After": "7200"})]) as day:
        found = client.call(day, WITH_KEY, ("ask", 1))

    assert "429" in found["error"]
    assert found["slept"] == []


def test_python_sends_five_requests_in_sixty_seconds(client: Client) -> None:
    with serving_clients() as day:
        five = client.call(day, WITH_OAUTH, ("ask", 5))
        eleven = client.call(day, WITH_OAUTH, ("ask", 11))

    assert five["slept"] == []
    assert len(eleven["answers"]) == 11
    assert len(day.requests) == 16
    # Five, then five a minute later, then one more.
    assert eleven["seconds"] == pytest.approx(120, abs=2)


def test_error_in_a_stream_is_raised(folder: Path) -> None:
    client = Client(kind="sync", folder=folder)
    with serving_clients(defects=("stream-fails",)) as day:
        found = client.call(day, WITH_KEY, ("stream", 1))

    assert "RuntimeError: invalid_param: Run failed" in found["error"]


@pytest.mark.parametrize("name", ["stream.sh", "dify.mjs", "dify_async.py"])
def test_error_in_a_stream_fails_the_program(name: str, folder: Path) -> None:
    with serving_clients(defects=("stream-fails",)) as day:
        done = run(BY_NAME[name], folder, variables(day, WITH_KEY))

    assert done.returncode != 0
    assert "Run failed" in done.stderr
