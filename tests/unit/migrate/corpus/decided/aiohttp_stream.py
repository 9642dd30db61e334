# Aiohttp, a stream.
import os

import aiohttp

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

import asyncio
import json


async def main():
    async with aiohttp.ClientSession() as session:
        payload = {"query": "hello", "user": "u", "inputs": {}, "response_mode": "streaming"}
        async with session.post(f"{BASE}/chat-messages", headers=HEADERS, json=payload) as response:
            async for raw in response.content:
                line = raw.decode("utf-8").strip()
                if not line.startswith("data:"):
                    continue
                event = json.loads(line[5:])
                if event.get("event") in ("message", "agent_message"):
                    print(event.get("answer", ""), end="")
                elif event.get("event") == "message_end":
                    break
    print()


asyncio.run(main())
