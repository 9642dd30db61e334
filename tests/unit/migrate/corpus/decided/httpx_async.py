# Httpx, async.
import asyncio
import os

import httpx

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

async def main():
    async with httpx.AsyncClient() as client:
        r = await client.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "hello", "user": "u"})
        body = r.json()
        print(body["answer"])


asyncio.run(main())
