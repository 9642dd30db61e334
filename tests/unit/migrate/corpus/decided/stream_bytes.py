# A stream of bytes.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

import json

response = requests.post(
    f"{BASE}/chat-messages",
    headers=HEADERS,
    json={"query": "hello", "user": "u", "response_mode": "streaming"},
    stream=True,
    timeout=5,
)
for line in response.iter_lines():
    if line and line.startswith(b"data: "):
        event = json.loads(line[6:])
        if event["event"] == "message":
            print(event["answer"], end="", flush=True)
print()
