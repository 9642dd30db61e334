# Session with a header of its own.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

s = requests.Session()
s.headers.update(HEADERS)
r = s.post(f"{BASE}/chat-messages", json={"query": "hello", "user": "u"}, timeout=5)
print(r.json()["answer"])
