# Aiohttp, awaited, the session as a parameter, imported by name.
import os

import aiohttp

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

import asyncio
from aiohttp import ClientSession


async def ask(session: ClientSession, question: str) -> str:
    response = await session.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": question, "user": "u"})
    response.raise_for_status()
    return (await response.json())["answer"]


async def main() -> None:
    async with ClientSession() as session:
        print(await asyncio.gather(ask(session, "a"), ask(session, "b")))


asyncio.run(main())
