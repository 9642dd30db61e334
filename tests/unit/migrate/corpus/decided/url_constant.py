"""The address in a constant that two calls read."""
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
URL = f"{BASE}/chat-messages"
HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


def ask(query):
    response = requests.post(URL, headers=HEADERS, json={"inputs": {}, "query": query, "user": "ana"})
    response.raise_for_status()
    return response.json()["answer"]


print(ask("one"))
print(requests.post(URL, headers=HEADERS, json={"query": "two", "user": "ana"}).json()["answer"])
