# The package dify-client-python, async, both ways.
import asyncio
import os

from dify_client import AsyncClient, models

client = AsyncClient(api_key="app-secret", api_base=os.environ["DIFY_URL"])


async def main():
    whole = models.ChatRequest(query="one", inputs={}, user="u", response_mode="blocking")
    print((await client.achat_messages(whole)).answer)
    parts = models.ChatRequest(query="two", inputs={}, user="u", response_mode=models.ResponseMode.STREAMING)
    async for chunk in await client.achat_messages(parts, timeout=30.0):
        if chunk.event in (models.StreamEvent.MESSAGE, models.StreamEvent.AGENT_MESSAGE):
            print(chunk.answer, end="")
    print()


asyncio.run(main())
