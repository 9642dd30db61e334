# Httpx without a client.
import os

import httpx

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

r = httpx.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "hello", "user": "u"})
print(r.json()["answer"])
