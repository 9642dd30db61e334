# Called from a comprehension.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

def ask(q):
    r = requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": q, "user": "u"}, timeout=5)
    return r.json()["answer"]


print([ask(str(n)) for n in range(3)])
