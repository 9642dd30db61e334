# A stream, events known by their field.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

import json

with requests.Session() as http:
    r = http.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "hello", "user": "u", "response_mode": "streaming"}, stream=True, timeout=5)
    parts = []
    for raw in r.iter_lines():
        # Only data is of interest.
        if raw.startswith(b"data:"):
            event = json.loads(raw.decode().split("data:", 1)[1])
            if "answer" in event:
                parts.append(event["answer"])
    print("".join(parts))
