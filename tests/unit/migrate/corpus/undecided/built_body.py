# Body in steps.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

body = {"query": "q"}
body["user"] = "u"
r = requests.post(f"{BASE}/chat-messages", headers=HEADERS, json=body)
print(r.json()["answer"])
