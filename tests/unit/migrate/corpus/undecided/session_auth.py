# A session with auth.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

s = requests.Session()
s.auth = ("a", "b")
r = s.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "q"})
print(r.json()["answer"])
