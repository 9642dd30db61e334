# One name for two responses.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

r = requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "q", "user": "u"})
print(r.json()["answer"])
r = requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "q", "user": "u"})
print(r.json()["answer"])
