"""Upstream of the streams: server-sent events, each stamped just before it is written.

`GET|POST /any/path?events=N&gap=MS` answers N events, MS milliseconds apart, the first one together with the
header. The stamp is CLOCK_MONOTONIC in nanoseconds, which every container of a machine shares.
"""

import asyncio
import contextlib
import json
import sys
import time
from urllib.parse import parse_qs, urlsplit

PORT = 5001
MOST_EVENTS = 1000
LONGEST_GAP = 5.0
HEADER_SECONDS = 30
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def event(number: int) -> bytes:
    """Return one event as a chunk, stamped now."""
    data = (
        b"data: %s\n\n" % json.dumps({"event": "message", "n": number, "sent": time.monotonic_ns()}).encode()
    )
    return b"%x\r\n%s\r\n" % (len(data), data)


def asked(target: str) -> tuple[int, float]:
    """Return how many events a request wants, and the gap between them in seconds."""
    query = parse_qs(urlsplit(target).query)
    events = min(int(query.get("events", ["1"])[0]), MOST_EVENTS)
    return events, min(int(query.get("gap", ["0"])[0]) / 1000, LONGEST_GAP)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection, request after request, until the client goes."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
        while True:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEADER_SECONDS)
            request, *lines = head.decode("latin-1").split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
            await reader.readexactly(int(fields.get("content-length", "0")))
            events, gap = asked(request.split(" ")[1])
            start = time.monotonic()
            for number in range(events):
                # By the clock, not by sleeping a gap each: the gaps must not add up to more.
                await asyncio.sleep(max(0.0, start + number * gap - time.monotonic()))
                writer.write((HEAD if number == 0 else b"") + event(number))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
            await writer.drain()
    writer.close()


async def serve(port: int = PORT) -> asyncio.Server:
    """Listen on every address of the container."""
    return await asyncio.start_server(answer, "0.0.0.0", port, backlog=1024)  # noqa: S104  # its own network


async def main() -> None:
    """Serve for ever."""
    server = await serve()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
