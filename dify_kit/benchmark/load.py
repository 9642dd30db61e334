"""Send the requests, within the limits on their number, concurrency and duration."""

import asyncio
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import httpx

from dify_kit.benchmark.reasons import reason
from dify_kit.benchmark.statistics import Sample
from dify_kit.benchmark.targets import USER, Reading, Target

CLEANING_SECONDS = 30
# A connection that takes longer has failed: a firewall drops its packets, or the host is down.
CONNECT_SECONDS = 10
# How long to wait where a limit refuses to delete: the edge's own limits forgive in 2 s.
PAUSE_SECONDS = 1.0
MALFORMED = (ValueError, AttributeError, LookupError, TypeError)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of a run; `seconds` also cuts the requests that are still open then, warm-up and all."""

    requests: int
    seconds: float
    concurrency: int

    @property
    def clients(self) -> int:
        """How many clients there are; each has a connection and waits for its answers."""
        return min(self.concurrency, self.requests)


@dataclass
class Run:
    """What a run found. `seconds` is the time after the warm-up."""

    samples: list[Sample] = field(default_factory=list)
    warm_up: list[Sample] = field(default_factory=list)
    conversations: set[str] = field(default_factory=set)
    left: int = 0
    seconds: float = 0.0


async def run(target: Target, limits: Limits, tell: Callable[[int], None]) -> Run:
    """Measure one target; delete its conversations, also after an interruption. `tell` receives the count."""
    found, issued, started = Run(), 0, 0.0
    verify = ssl.create_default_context()
    if target.ca:
        verify.load_verify_locations(cadata=target.ca)

    async def worker() -> None:
        nonlocal issued
        while issued < limits.requests:
            issued += 1
            await _ask(client, target, found, found.samples)
            tell(len(found.samples))

    pool = httpx.Limits(max_connections=limits.clients, max_keepalive_connections=limits.clients)
    # `seconds` is for all of it; httpx's own timeout, for each read, must not come before.
    wait = limits.seconds + CLEANING_SECONDS
    timeout = httpx.Timeout(wait, connect=CONNECT_SECONDS)
    async with httpx.AsyncClient(
        verify=verify, headers=target.headers, limits=pool, timeout=timeout, trust_env=False
    ) as client:
        try:
            async with asyncio.timeout(limits.seconds):
                # All together, so that each client has its connection when the counting starts.
                await asyncio.gather(
                    *(_ask(client, target, found, found.warm_up) for _ in range(limits.clients))
                )
                started = time.perf_counter()
                await asyncio.gather(*(worker() for _ in range(limits.clients)))
        except TimeoutError:
            pass  # each open request has counted itself
        finally:
            found.seconds = time.perf_counter() - started if started else 0.0
            await _clean(client, target, found, limits.clients)
    return found


async def _ask(client: httpx.AsyncClient, target: Target, found: Run, samples: list[Sample]) -> None:
    started, first, error, why, reading = time.perf_counter(), None, "", "", Reading()
    try:
        async with client.stream("POST", target.endpoint, json=target.body) as answer:
            error = _refusal(answer)
            if not error:
                async for _ in _read(answer, reading, streaming=target.streaming):
                    if reading.token and first is None:
                        first = time.perf_counter() - started
                error = "answer_error" if reading.failed else "" if reading.done else "cut"
    except asyncio.CancelledError:
        error = "time_is_up"
        raise
    except (httpx.ConnectError, httpx.ConnectTimeout) as problem:
        error, why = "connect", reason(problem)
    except httpx.HTTPError as problem:
        error, why = "cut", reason(problem)
    except MALFORMED:
        error = "malformed"
    finally:
        took = time.perf_counter() - started
        samples.append(Sample(seconds=took, first_token=first, error=error, reason=why))
        if target.kind == "dify" and reading.conversation:
            found.conversations.add(reading.conversation)


async def _read(answer: httpx.Response, reading: Reading, *, streaming: bool) -> AsyncIterator[None]:
    """Yield after each piece that was read: a line of a stream, or all of it."""
    if streaming:
        async for line in answer.aiter_lines():
            reading.line(line)
            yield
    else:
        reading.whole((await answer.aread()).decode())
        yield


def _refusal(answer: httpx.Response) -> str:
    if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        return "rate_limited"
    return "" if answer.is_success else f"http_{answer.status_code}"


async def _clean(client: httpx.AsyncClient, target: Target, found: Run, clients: int) -> None:
    found.left, waiting = len(found.conversations), iter(sorted(found.conversations))

    async def worker() -> None:
        for one in waiting:
            # Not in one statement: `-=` reads before it waits, and others count meanwhile.
            deleted = await _deleted(client, target, one)
            found.left -= deleted

    try:
        async with asyncio.timeout(CLEANING_SECONDS):
            await asyncio.gather(*(worker() for _ in range(clients)))
    except TimeoutError:
        pass  # `left` tells how many are still there


async def _deleted(client: httpx.AsyncClient, target: Target, conversation: str) -> bool:
    try:
        url = f"{target.url}/conversations/{uuid.UUID(conversation)}"
        while True:
            answer = await client.request("DELETE", url, json={"user": USER})
            if answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
                return answer.is_success or answer.status_code == httpx.codes.NOT_FOUND
            await asyncio.sleep(PAUSE_SECONDS)
    except (httpx.HTTPError, ValueError):
        return False
