# The package dify-python-sdk, async.
import asyncio
import os

from dify_client import AsyncChatClient


async def main():
    async with AsyncChatClient("app-secret", os.environ["DIFY_URL"]) as client:
        response = await client.create_chat_message(inputs={}, query="hello", user="u", response_mode="blocking")
        data = response.json()
        print(data["answer"])


asyncio.run(main())
