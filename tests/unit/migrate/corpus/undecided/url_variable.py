# The address in a variable.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

URL = f"{BASE}/chat-messages"
r = requests.post(URL, headers=HEADERS, json={"query": "q"})
