# Flat script, dictionary in the call.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

response = requests.post(
    f"{BASE}/chat-messages",
    headers={"Authorization": f"Bearer {KEY}", "X-Trace": "1"},
    json={"query": "hello", "user": "u1", "inputs": {}, "response_mode": "blocking"},
    timeout=5,
)
response.raise_for_status()
print(response.json()["answer"])
