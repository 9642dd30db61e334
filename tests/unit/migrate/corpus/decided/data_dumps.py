# The body as text.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

import json
r = requests.post(f"{BASE}/chat-messages", headers=HEADERS, data=json.dumps({"query": "q", "user": "u"}), timeout=5)
print(r.json()["answer"])
