# Address by concatenation, url= keyword.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

r = requests.post(url=BASE + "/chat-messages", headers=HEADERS, json={"query": "hello", "user": "u"}, timeout=5)
if r.status_code == 200:
    print(r.json()["answer"])
