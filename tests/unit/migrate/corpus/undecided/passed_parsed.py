# The parsed body goes to a function from elsewhere.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

from mine import show

r = requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "q", "user": "u"})
show(r.json())
