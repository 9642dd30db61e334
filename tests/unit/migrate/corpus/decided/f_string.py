# Answer inside f-strings.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

r = requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "hello", "user": "u"}, timeout=5)
print(f"{r.json()['answer']} {r.json().get('answer')!r:>3}")
