"""Upstream of the streams: server-sent events, each stamped just before it is written.

`GET|POST /any/path?events=N&gap=MS` answers N events, MS milliseconds apart, the first one together with the
header. The stamp is CLOCK_MONOTONIC in nanoseconds, which every container of a machine shares.

`POST .../chat/completions` answers as OpenAI's API streams, 20 ms apart: as many pieces as `max_tokens` says, each with
`<number>:<stamp> ` as its content, then the usage if it was asked for, and the mark of the end.

Runs as `sse_server.py [PORT [CERTIFICATE KEY]]`, with the last two (PEM files) over TLS.
"""

import asyncio
import contextlib
import json
import ssl
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

PORT = 5001
MOST_EVENTS = 1000
LONGEST_GAP = 5.0
HEADER_SECONDS = 30
CHAT = "/chat/completions"
CHAT_GAP = 0.02
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def chunk(data: str) -> bytes:
    """Return one event as a chunk."""
    text = f"data: {data}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(text), text)


def event(number: int) -> bytes:
    """Return one event as a chunk, stamped now."""
    return chunk(json.dumps({"event": "message", "n": number, "sent": time.monotonic_ns()}))


def piece(number: int, model: str) -> bytes:
    """Return one piece of a chat's answer as a chunk, stamped now."""
    delta = {"role": "assistant"} if number == 0 else {}
    choice = {
        "index": 0,
        "delta": {**delta, "content": f"{number}:{time.monotonic_ns()} "},
        "finish_reason": None,
    }
    return chunk(json.dumps({**_told(model), "choices": [choice]}))


def last_pieces(asked: dict[str, Any], events: int) -> Iterator[bytes]:
    """Yield what comes after the content, as chunks."""
    model = asked["model"]
    stop = {"index": 0, "delta": {}, "finish_reason": "stop"}
    yield chunk(json.dumps({**_told(model), "choices": [stop]}))
    if (asked.get("stream_options") or {}).get("include_usage"):
        usage = {"prompt_tokens": 5, "completion_tokens": events, "total_tokens": 5 + events}
        yield chunk(json.dumps({**_told(model), "choices": [], "usage": usage}))
    yield chunk("[DONE]")


def _told(model: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1764000000,
        "model": model,
        "system_fingerprint": "fp_bench",
    }


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
            body = await reader.readexactly(int(fields.get("content-length", "0")))
            target = request.split(" ")[1]
            chat = json.loads(body) if target.endswith(CHAT) else None
            events, gap = asked(target) if chat is None else (int(chat["max_tokens"]), CHAT_GAP)
            start = time.monotonic()
            for number in range(events):
                # By the clock, not by sleeping a gap each: the gaps must not add up to more.
                await asyncio.sleep(max(0.0, start + number * gap - time.monotonic()))
                one = event(number) if chat is None else piece(number, chat["model"])
                writer.write((HEAD if number == 0 else b"") + one)
                await writer.drain()
            for one in last_pieces(chat, events) if chat else ():
                writer.write(one)
            writer.write(b"0\r\n\r\n")
            await writer.drain()
    writer.close()


async def serve(port: int = PORT, tls: ssl.SSLContext | None = None) -> asyncio.Server:
    """Listen on every address of the container."""
    return await asyncio.start_server(answer, "0.0.0.0", port, backlog=1024, ssl=tls)  # noqa: S104  # its own network


async def main(arguments: list[str]) -> None:
    """Serve for ever."""
    port, *pair = arguments or [str(PORT)]
    tls = None
    if pair:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*pair)
    server = await serve(int(port), tls)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
