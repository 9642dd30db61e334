# Httpx, async, in one expression.
import asyncio
import os

import httpx

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

async def main():
    async with httpx.AsyncClient() as client:
        print((await client.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "hello", "user": "u"})).json()["answer"])


asyncio.run(main())
