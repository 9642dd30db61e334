"""Open many event streams at once and tell how late each event came: JSON in the first argument, JSON on stdout.

In: port, host, path, streams, at_once, events, gap (ms), deadline (s, for each stream); for a chat in OpenAI's schema
besides: model, authorization, tls (whether the port speaks it; nobody's certificate is checked).
Out: `streams`, one object each: `first` and `lags` in microseconds, `problem` (empty when it ended well).
"""

import asyncio
import json
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

ADDRESS = "127.0.0.1"
BODY = json.dumps({"inputs": {}, "query": "hi", "response_mode": "streaming", "user": "bench"})


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to open. `at_once` streams run side by side; their starts are spread over one gap."""

    port: int
    host: str
    path: str
    streams: int
    at_once: int
    events: int
    gap: int
    deadline: float
    model: str = ""
    authorization: str = ""
    tls: bool = False


@dataclass(kw_only=True)
class Stream:
    """One stream as the client saw it. Lags are in microseconds, from upstream's stamp to the arrival.

    `first` is the time from the request, sent over an open connection, to the first event.
    """

    first: int = 0
    lags: list[int] = field(default_factory=list)
    problem: str = ""


class BrokenStreamError(Exception):
    """The stream did not go as it should; the message says how."""


def request(wanted: Wanted, number: int) -> bytes:
    """Return a chat request with a key of its own, so that no limit per credential counts them together."""
    query = "" if wanted.model else f"?events={wanted.events}&gap={wanted.gap}"
    body = BODY
    if wanted.model:
        asked = [{"role": "user", "content": "hi"}]
        body = json.dumps(
            {"model": wanted.model, "messages": asked, "max_tokens": wanted.events, "stream": True}
        )
    lines = [
        f"POST {wanted.path}{query} HTTP/1.1",
        f"Host: {wanted.host}",
        f"Authorization: {wanted.authorization or f'Bearer app-bench-{number}'}",
        "Content-Type: application/json",
        "Accept: text/event-stream",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "",
        body,
    ]
    return "\r\n".join(lines).encode()


def stamps(data: str, *, chat: bool) -> Iterator[tuple[int, int]]:
    """Yield (number, stamp) of what an event tells; of a chat's last ones nothing."""
    if not chat:
        body = json.loads(data)
        yield body["n"], body["sent"]
    elif data != "[DONE]":
        for choice in json.loads(data)["choices"]:
            for word in (choice["delta"].get("content") or "").split():
                number, _, sent = word.partition(":")
                yield int(number), int(sent)


async def read(reader: asyncio.StreamReader, wanted: Wanted, stream: Stream, began: int) -> None:
    """Read one answer to its end. Raises BrokenStreamError, or what asyncio raises when it is cut."""
    head = await reader.readuntil(b"\r\n\r\n")
    status = head.split(b"\r\n", 1)[0].decode("latin-1")
    if " 200 " not in f"{status} ":
        raise BrokenStreamError(f"answered {status}")
    if b"chunked" not in head.lower():
        raise BrokenStreamError("not chunked")
    waiting = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        chunk = await reader.readexactly(size + 2)
        arrived = time.monotonic_ns()
        *events, waiting = (waiting + chunk[:-2]).split(b"\n\n")
        for event in events:
            for number, sent in stamps(event.decode().removeprefix("data: "), chat=bool(wanted.model)):
                if number != len(stream.lags):
                    raise BrokenStreamError(f"event {number} came as number {len(stream.lags)}")
                stream.first = stream.first or (arrived - began) // 1000
                stream.lags.append((arrived - sent) // 1000)
    if len(stream.lags) != wanted.events:
        raise BrokenStreamError(f"ended after {len(stream.lags)} of {wanted.events} events")


async def follow(wanted: Wanted, number: int, turn: asyncio.Semaphore) -> Stream:
    """Open one stream when it is its turn, and follow it."""
    stream = Stream()
    tls = None
    if wanted.tls:
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    async with turn:
        await asyncio.sleep(wanted.gap / 1000 * (number % wanted.at_once) / wanted.at_once)
        try:
            async with asyncio.timeout(wanted.deadline):
                reader, writer = await asyncio.open_connection(ADDRESS, wanted.port, ssl=tls)
                try:
                    began = time.monotonic_ns()
                    writer.write(request(wanted, number))
                    await read(reader, wanted, stream, began)
                finally:
                    writer.close()
        except TimeoutError:
            stream.problem = f"not over within {wanted.deadline:.0f} s, {len(stream.lags)} events"
        except (OSError, EOFError, ValueError, KeyError, BrokenStreamError) as problem:
            stream.problem = f"{problem!r} after {len(stream.lags)} events"
    return stream


async def run(wanted: Wanted) -> list[Stream]:
    """Follow all streams and return them in the order of their numbers."""
    turn = asyncio.Semaphore(wanted.at_once)
    return await asyncio.gather(*(follow(wanted, number, turn) for number in range(wanted.streams)))


if __name__ == "__main__":
    results = asyncio.run(run(Wanted(**json.loads(sys.argv[1]))))
    json.dump({"streams": [asdict(one) for one in results]}, sys.stdout)
