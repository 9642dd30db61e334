# Body in a variable, in a function.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

def ask(question: str) -> str:
    payload = {
        "inputs": {},
        "query": question,  # what is asked
        "user": "u",
        "conversation_id": "",
    }
    r = requests.post(f"{BASE}/chat-messages", json=payload, headers=HEADERS, timeout=5)
    return r.json()["answer"]


print(ask("hello"))
