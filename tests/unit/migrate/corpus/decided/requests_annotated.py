# Typed function that returns the answer at once.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

def ask(q: str, *, user: str = "u") -> str:
    return requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": q, "user": user, "response_mode": "blocking"}, timeout=5).json()["answer"]


print(ask("hello"))
