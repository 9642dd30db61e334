# Error handling around the call.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

try:
    r = requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "hello", "user": "u"}, timeout=5)
    r.raise_for_status()
    print(r.json()["answer"])
except requests.RequestException as error:
    print("failed", error)
