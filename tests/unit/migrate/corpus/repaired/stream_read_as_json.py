# Streaming.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

r = requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "q", "user": "u", "response_mode": "streaming"}, stream=True)
print(r.json()["answer"])
