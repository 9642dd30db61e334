# Os is something else.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

def f(os):
    return os


r = requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "q", "user": "u"})
print(r.json()["answer"])
