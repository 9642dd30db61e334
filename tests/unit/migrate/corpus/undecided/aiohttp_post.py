# Aiohttp.
import os

import aiohttp

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

async def ask():
    async with aiohttp.ClientSession() as s, s.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "q"}) as r:
        return (await r.json())["answer"]
