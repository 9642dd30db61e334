# Httpx, async, a stream.
import os

import httpx

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

import asyncio
import json


async def main():
    async with httpx.AsyncClient(timeout=5) as client:
        async with client.stream("POST", f"{BASE}/chat-messages", headers=HEADERS, json={"query": "hello", "user": "u", "response_mode": "streaming"}) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    event = json.loads(line[6:])
                    if event.get("event") == "message":
                        print(event.get("answer"), end="")
    print()


asyncio.run(main())
