# Other functions have names of their own.
import json
import os

import requests

BASE = os.environ["DIFY_URL"]
HEADERS = {"Authorization": "Bearer app-secret"}


def show(line, event=None):
    response = f"{line}"
    return response


def kinds(events):
    return [event["event"] for event in events]


response = requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "hello", "user": "u", "response_mode": "streaming"}, stream=True, timeout=5)
for line in response.iter_lines():
    if line.startswith(b"data:"):
        data = json.loads(line[5:])
        if data["event"] == "message":
            print(show(data["answer"]), end="")
print()
