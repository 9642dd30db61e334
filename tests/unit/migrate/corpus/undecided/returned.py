# The whole response is returned.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

def ask():
    return requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "q", "user": "u"})
