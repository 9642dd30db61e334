# Body with a spread.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

extra = {}
r = requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "q", **extra})
print(r.json()["answer"])
