import asyncio
import json
import os

import httpx

BASE = os.environ["DIFY_URL"]


async def send(path: str, payload: dict) -> httpx.Response:
    headers = {"Authorization": "Bearer app-secret", "Content-Type": "application/json"}
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.post(BASE + path, headers=headers, content=json.dumps(payload))


async def main():
    first = await send(path="/chat-messages", payload={"query": "one", "user": "ana"})
    print(first.json()["answer"])
    second = await send("/chat-messages", {"query": "two", "user": "ana"})
    print(second.json()["answer"])


asyncio.run(main())
