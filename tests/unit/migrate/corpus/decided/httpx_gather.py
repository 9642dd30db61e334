# Several questions at once.
import asyncio
import os

import httpx

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

async def ask(q):
    async with httpx.AsyncClient() as c:
        r = await c.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": q, "user": "u"})
    return r.json().get("answer")


async def main():
    print(await asyncio.gather(*(ask(q) for q in ("a", "b", "c"))))


asyncio.run(main())
