# A function that returns bodies of two apps.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

def ask(other):
    if other:
        return requests.get("https://other.example/answers").json()
    r = requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "q", "user": "u"})
    return r.json()


print(ask(True)["answer"])
