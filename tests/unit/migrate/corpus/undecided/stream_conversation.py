# A stream, the conversation kept.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

import json

r = requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "q", "user": "u", "response_mode": "streaming"}, stream=True)
for line in r.iter_lines():
    if line.startswith(b"data:"):
        event = json.loads(line[5:])
        print(event.get("answer", ""), event.get("conversation_id"))
