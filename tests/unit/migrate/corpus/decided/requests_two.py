# Two calls with one dictionary of headers.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

def one():
    r = requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "hello", "user": "u"}, timeout=5)
    return r.json()["answer"]


def two():
    r = requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "again", "user": "u"}, timeout=5)
    return r.json()["answer"]


print(one(), two())
