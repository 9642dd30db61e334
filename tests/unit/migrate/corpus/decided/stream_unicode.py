# A stream of text, collected.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

import json

payload = {"query": "hello", "user": "u", "response_mode": "streaming"}
response = requests.post(f"{BASE}/chat-messages", headers=HEADERS, json=payload, stream=True, timeout=5)
answer = ""
for line in response.iter_lines(decode_unicode=True):
    if line.startswith("data:"):
        answer += json.loads(line.removeprefix("data:")).get("answer", "")
print(answer)
