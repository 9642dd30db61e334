"""docs/guides/clients.md: every program on the page works, also on a bad day."""

import asyncio
import importlib
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from tests.clients_guide import GUIDE, Program, programs, run, save
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


class Clock:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = time.time()
        self.slept: list[float] = []
        self.sleeper = threading.get_ident()
        self.really = time.sleep

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Move on; the server's threads sleep as ever."""
        if threading.get_ident() != self.sleeper:
            self.really(seconds)
            return
        self.slept.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float, result: object = None) -> object:
        self.sleep(seconds)
        return result


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock.time)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    monkeypatch.setattr(asyncio, "sleep", clock.sleep_async)
    return clock


@pytest.fixture
def load(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Import a program by its module's name."""
    monkeypatch.syspath_prepend(str(folder))
    # A package of the same name is installed, and whoever ran before in this process may have imported it.
    for name in ("dify_client", "dify_async"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def imported(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield imported
    for name in ("dify_client", "dify_async"):
        sys.modules.pop(name, None)


Say = Callable[[int], list[str]]


@pytest.fixture(params=["sync", "async"])
def say(request: pytest.FixtureRequest, load: Callable[[str], Any]) -> Say:
    """Say something so many times with one client, one after the other; return the answers."""

    def by_sync(times: int) -> list[str]:
        module = load("dify_client")
        with module.connect() as client:
            return [str(module.ask(client, f"Number {n}", "u-1")["answer"]) for n in range(times)]

    def by_async(times: int) -> list[str]:
        module = load("dify_async")

        async def talk() -> list[str]:
            async with module.connect() as client:
                return [str(await module.ask(client, f"Number {n}", "u-1")) for n in range(times)]

        return asyncio.run(talk())

    return by_sync if request.param == "sync" else by_async


def ways(program: Program) -> list[dict[str, str]]:
    """Return the ways in that a program has: it names their variables."""
    found = [way for way in (WITH_KEY, WITH_OAUTH) if all(name in program.text for name in way)]
    return found or [{}]


def test_every_block_of_the_page_is_a_program_with_a_name_of_its_own() -> None:
    fences = re.findall(r"^[ >]*(?:```|~~~).*$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)

    assert len(fences) == 2 * len(programs())
    assert len(BY_NAME) == len(programs()) >= 7


@pytest.mark.parametrize(
    ("program", "way"),
    [(program, way) for program in programs() for way in ways(program)],
    ids=lambda value: value.name if isinstance(value, Program) else "-".join(value),
)
def test_every_program_of_the_page_answers(program: Program, way: dict[str, str], folder: Path) -> None:
    with serving_clients() as day:
        done = run(program, folder, variables(day, way))

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


@pytest.mark.parametrize("name", OAUTH)
def test_revoked_token_is_renewed_once(name: str, folder: Path) -> None:
    with serving_clients(revoked=1) as day:
        done = run(BY_NAME[name], folder, variables(day, WITH_OAUTH))

    assert done.returncode == 0, done.stderr
    assert "You said: Good morning" in done.stdout
    # One for both questions that dify_async.py asks at the same time.
    assert len(day.tokens) == 2
    assert day.bearers[-1] == day.tokens[-1]


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


def environment(monkeypatch: pytest.MonkeyPatch, day: Day, way: dict[str, str]) -> None:
    for name, value in variables(day, way).items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("life", "tokens"), [(301, 2), (302 + 60, 1)])
def test_python_renews_300_seconds_early(
    life: int, tokens: int, load: Callable[[str], Any], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_clients(lives=[life]) as day:
        environment(monkeypatch, day, WITH_OAUTH)
        module = load("dify_client")
        with module.connect() as client:
            module.ask(client, "Hello", "u-1")
            first = len(day.tokens)
            clock.sleep(2)
            module.ask(client, "Hello", "u-1")

    assert first == 1
    assert len(day.tokens) == tokens
    assert day.bearers == [day.tokens[0], day.tokens[-1]]


@pytest.mark.parametrize(("life", "tokens"), [(301, 2), (302 + 60, 1)])
def test_asyncio_renews_300_seconds_early(
    life: int, tokens: int, load: Callable[[str], Any], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_clients(lives=[life]) as day:
        environment(monkeypatch, day, WITH_OAUTH)
        module = load("dify_async")

        async def talk() -> None:
            async with module.connect() as client:
                await module.ask(client, "Hello", "u-1")
                clock.sleep(2)
                await asyncio.gather(*(module.ask(client, "Hello", "u-1") for _ in range(3)))

        asyncio.run(talk())

    # However many tasks wait for it, one token.
    assert len(day.tokens) == tokens
    assert day.bearers == [day.tokens[0], *[day.tokens[-1]] * 3]


@pytest.mark.parametrize("way", [WITH_KEY, WITH_OAUTH], ids=["key", "oauth"])
def test_python_waits_as_long_as_it_is_told(
    way: dict[str, str], say: Say, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = [(429, {"Retry-After": "13"}), (503, {"Retry-After": "7"})]
    with serving_clients(refusals=refusals) as day:
        environment(monkeypatch, day, way)
        assert say(1)[0].startswith("You said: Number 0")

    assert clock.slept == [13, 7]


def test_retry_after_may_be_a_date(say: Say, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    with serving_clients(refusals=[(503, {"Retry-After": date})]) as day:
        environment(monkeypatch, day, WITH_KEY)
        say(1)

    (slept,) = clock.slept
    assert 30 < slept <= 40


def test_python_gives_up_after_five_tries_and_shows_the_answer(
    say: Say, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_clients(refusals=[(429, {"Retry-After": "1"})] * 9) as day:
        environment(monkeypatch, day, WITH_KEY)
        with pytest.raises(httpx.HTTPStatusError, match="429"):
            say(1)

    assert clock.slept == [1] * 4
    assert len(day.requests) == 5


def test_python_does_not_wait_for_hours(say: Say, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving_clients(refusals=[(429, {"Retry-After": "7200"})]) as day:
        environment(monkeypatch, day, WITH_KEY)
        with pytest.raises(httpx.HTTPStatusError, match="429"):
            say(1)

    assert clock.slept == []


def test_python_sends_five_requests_in_sixty_seconds(
    say: Say, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_clients() as day:
        environment(monkeypatch, day, WITH_OAUTH)
        before = clock.now
        say(5)
        at_once = list(clock.slept)
        assert len(say(11)) == 11

    assert at_once == []
    assert len(day.requests) == 16
    # The second client begins anew: five, then five a minute later, then one more.
    assert clock.now - before == pytest.approx(120, abs=2)


def test_error_in_a_stream_is_raised(load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with serving_clients(defects=("stream-fails",)) as day:
        environment(monkeypatch, day, WITH_KEY)
        module = load("dify_client")
        with module.connect() as client, pytest.raises(RuntimeError, match="invalid_param: Run failed"):
            list(module.stream(client, "Hello", "u-1"))


@pytest.mark.parametrize("name", ["stream.sh", "dify.mjs", "dify_async.py"])
def test_error_in_a_stream_fails_the_program(name: str, folder: Path) -> None:
    with serving_clients(defects=("stream-fails",)) as day:
        done = run(BY_NAME[name], folder, variables(day, WITH_KEY))

    assert done.returncode != 0
    assert "Run failed" in done.stderr
