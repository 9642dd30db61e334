# A client from elsewhere.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

from mine import http
r = http.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "q", "user": "u"})
print(r.json()["answer"])
