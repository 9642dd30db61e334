# Httpx client with a base URL.
import os

import httpx

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

with httpx.Client(base_url=BASE, headers=HEADERS) as client:
    r = client.post("/chat-messages", json={"query": "hello", "user": "u"})
    print(r.json()["answer"])
