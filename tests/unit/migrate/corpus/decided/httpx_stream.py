# Httpx, a stream.
import os

import httpx

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

import json

with httpx.stream("POST", f"{BASE}/chat-messages", headers=HEADERS, json={"query": "hello", "user": "u", "response_mode": "streaming"}, timeout=5) as r:
    for line in r.iter_lines():
        if line.startswith("data: "):
            event = json.loads(line[6:])
            if event["event"] == "message":
                print(event["answer"], end="")
            if event["event"] == "message_end":
                print()
                break
