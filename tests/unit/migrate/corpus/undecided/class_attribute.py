# Response kept on the class.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

class A:
    r = requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": "q"})


print(A.r.json()["answer"])
