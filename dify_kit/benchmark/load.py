"""Sends the requests: never more of them, more at once or for longer than asked."""

import asyncio
import ssl
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from dify_kit.benchmark.statistics import Sample
from dify_kit.benchmark.targets import USER, Reading, Target

CLEANING_SECONDS = 30
TOO_MANY = 429


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of a run; `seconds` also cuts the requests that are still open then."""

    requests: int
    seconds: float
    concurrency: int


@dataclass
class Run:
    """What a run found."""

    samples: list[Sample] = field(default_factory=list)
    conversations: set[str] = field(default_factory=set)
    left: int = 0
    seconds: float = 0.0


async def run(target: Target, limits: Limits, tell: Callable[[int], None]) -> Run:
    """Measure one target; delete its conversations also when interrupted. `tell` hears the count."""
    found, started, issued = Run(), time.perf_counter(), 0
    verify = ssl.create_default_context()
    if target.ca:
        verify.load_verify_locations(cadata=target.ca)

    async def worker() -> None:
        nonlocal issued
        while issued < limits.requests and time.perf_counter() - started < limits.seconds:
            issued += 1
            await _ask(client, target, found)
            tell(len(found.samples))

    pool = httpx.Limits(max_connections=limits.concurrency)
    async with httpx.AsyncClient(
        verify=verify, headers=target.headers, limits=pool, timeout=limits.seconds, trust_env=False
    ) as client:
        try:
            async with asyncio.timeout(limits.seconds):
                await asyncio.gather(*(worker() for _ in range(min(limits.concurrency, limits.requests))))
        except TimeoutError:
            pass  # each open request has counted itself as cut
        finally:
            found.seconds = time.perf_counter() - started
            await _clean(client, target, found)
    return found


async def _ask(client: httpx.AsyncClient, target: Target, found: Run) -> None:
    started, first, error, reading = time.perf_counter(), None, "", Reading()
    try:
        async with client.stream("POST", target.endpoint, json=target.body) as answer:
            error = _refusal(answer)
            if not error:
                async for line in answer.aiter_lines():
                    reading.line(line)
                    if reading.token and first is None:
                        first = time.perf_counter() - started
                error = "stream_error" if reading.failed else "" if reading.done else "cut"
    except asyncio.CancelledError:
        error = "time_is_up"
        raise
    except httpx.TimeoutException:
        error = "timeout"
    except httpx.ConnectError:
        error = "connect"
    except httpx.HTTPError:
        error = "cut"
    except (ValueError, AttributeError, LookupError, TypeError):
        error = "malformed"
    finally:
        found.samples.append(Sample(seconds=time.perf_counter() - started, first_token=first, error=error))
        if target.kind == "dify" and reading.conversation:
            found.conversations.add(reading.conversation)


def _refusal(answer: httpx.Response) -> str:
    if answer.status_code == TOO_MANY:
        return "rate_limited"
    return "" if answer.is_success else f"http_{answer.status_code}"


async def _clean(client: httpx.AsyncClient, target: Target, found: Run) -> None:
    found.left = len(found.conversations)
    try:
        async with asyncio.timeout(CLEANING_SECONDS):
            for one in sorted(found.conversations):
                try:
                    url = f"{target.url}/conversations/{uuid.UUID(one)}"
                    answer = await client.request("DELETE", url, json={"user": USER})
                except (httpx.HTTPError, ValueError):
                    continue
                found.left -= answer.is_success or answer.status_code == httpx.codes.NOT_FOUND
    except TimeoutError:
        pass  # `left` tells how many are still there
