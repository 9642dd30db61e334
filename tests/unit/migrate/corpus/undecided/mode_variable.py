# Response_mode not known.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

MODE = "blocking"
r = requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "q", "user": "u", "response_mode": MODE})
print(r.json()["answer"])
