# Arguments by **.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

kw = {}
r = requests.post(f"{BASE}/chat-messages", **kw)
