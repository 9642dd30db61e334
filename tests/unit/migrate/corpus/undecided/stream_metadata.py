# A stream, the usage read at its end.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

import json

r = requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "q", "user": "u", "response_mode": "streaming"}, stream=True)
done = False
for line in r.iter_lines():
    if line.startswith(b"data:"):
        event = json.loads(line[5:])
        if event["event"] == "message":
            print(event["answer"])
        elif event["event"] == "message_end":
            done = True
