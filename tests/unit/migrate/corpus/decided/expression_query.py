# The question is an expression.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

name = "World"
r = requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": f"Hello {name}".upper() + "!", "user": "u"}, timeout=5)
print(r.json()["answer"])
