# A stream of bytes, read as text.
import json
import os

import requests

BASE = os.environ["DIFY_URL"]
HEADERS = {"Authorization": "Bearer app-secret"}
r = requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "q", "user": "u", "response_mode": "streaming"}, stream=True)
for line in r.iter_lines():
    if line.startswith("data:"):
        print(json.loads(line[5:])["answer"])
