# Everything in one expression.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

print(requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "hello", "user": "u"}, timeout=5).json()["answer"])
