import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"


def headers():
    """Return what every call sends."""
    return {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


def headers_of(key):
    return {"Authorization": "Bearer " + key}


print(requests.post(f"{BASE}/chat-messages", headers=headers(), json={"query": "one", "user": "a"}).json()["answer"])
for number in ("two", "three"):
    made = headers_of(KEY)
    reply = requests.post(f"{BASE}/chat-messages", headers=made, json={"query": number, "user": "a"})
    print(reply.json()["answer"])
