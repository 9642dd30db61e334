# Aiohttp, nested with, the status looked at.
import os

import aiohttp

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

import asyncio


async def ask(question):
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        async with session.post(
            f"{BASE}/chat-messages",
            json={
                "inputs": {},
                "query": question,
                "response_mode": "blocking",
                "user": "u",
            },
            timeout=aiohttp.ClientTimeout(total=20),
        ) as response:
            if response.status != 200:
                raise RuntimeError(f"Dify says {response.status}: {await response.text()}")
            data = await response.json()
            return data.get("answer", "nothing")


print(asyncio.run(ask("hello")))
