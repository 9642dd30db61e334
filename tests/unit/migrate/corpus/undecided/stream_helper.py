# A stream, its lines read by a function from elsewhere.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

from mine import parse

r = requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "q", "user": "u", "response_mode": "streaming"}, stream=True)
for line in r.iter_lines():
    parse(line)
