# Class with a session attribute.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

class Bot:
    def __init__(self):
        self.http = requests.Session()
        self.http.headers["Authorization"] = f"Bearer {KEY}"

    def ask(self, q):
        r2 = self.http.post(f"{BASE}/chat-messages", json={"query": q, "user": "u"}, timeout=5)
        return r2.json()["answer"]


print(Bot().ask("hello"))
