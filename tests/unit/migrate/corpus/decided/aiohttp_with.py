# Aiohttp, both in one with.
import os

import aiohttp

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

import asyncio


async def ask():
    async with aiohttp.ClientSession() as s, s.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "q", "user": "u"}) as r:
        return (await r.json())["answer"]


print(asyncio.run(ask()))
