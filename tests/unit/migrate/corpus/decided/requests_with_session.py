# Session in a with.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

with requests.Session() as s:
    print(s.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "hello", "user": "u"}, timeout=5).json()["answer"])
