# A stream of a chatflow, its nodes watched.
import os

import httpx

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

import json

with httpx.stream("POST", f"{BASE}/chat-messages", headers=HEADERS, json={"query": "q", "user": "u", "response_mode": "streaming"}) as r:
    for line in r.iter_lines():
        if line.startswith("data:"):
            event = json.loads(line[5:])
            if event["event"] == "node_started":
                print("node")
