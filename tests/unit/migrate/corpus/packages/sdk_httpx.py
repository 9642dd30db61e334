# The package dify-python-sdk: httpx underneath.
import json
import os

from dify_client import ChatClient

with ChatClient(api_key="app-secret", base_url=os.environ["DIFY_URL"], timeout=20.0) as client:
    whole = client.create_chat_message(inputs={}, query="one", user="u")
    whole.raise_for_status()
    print(whole.json()["answer"])
    stream = client.create_chat_message(inputs={}, query="two", user="u", response_mode="streaming")
    for line in stream.iter_lines():
        if line.startswith("data:"):
            event = json.loads(line[5:])
            if event["event"] == "message":
                print(event["answer"], end="")
    print()
