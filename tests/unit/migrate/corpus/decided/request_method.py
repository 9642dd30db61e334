import json
import os

import httpx
import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"

reply = requests.request(
    "POST",
    f"{BASE}/chat-messages",
    headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    data=json.dumps({"inputs": {}, "query": "one", "response_mode": "blocking", "user": "ana"}),
)
print(reply.json()["answer"])
session = requests.Session()

answered = session.request(
    method="POST", url=f"{BASE}/chat-messages", headers={"Authorization": f"Bearer {KEY}"}, json={"query": "two", "user": "ana"}
)
print(answered.json()["answer"])
with httpx.Client() as client:
    third = client.request(
        "post", f"{BASE}/chat-messages", headers={"Authorization": f"Bearer {KEY}"}, json={"query": "three", "user": "ana"}
    )
    print(third.json()["answer"])
