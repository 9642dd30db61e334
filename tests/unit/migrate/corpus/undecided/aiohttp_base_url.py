# Aiohttp, a session with a base address.
import os

import aiohttp

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

async def ask():
    async with aiohttp.ClientSession(BASE, base_url=BASE) as s, s.post("/chat-messages", headers=HEADERS, json={"query": "q", "user": "u"}) as r:
        return (await r.json())["answer"]
