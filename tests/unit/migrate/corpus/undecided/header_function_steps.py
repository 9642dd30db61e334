import os

import requests

BASE = os.environ["DIFY_URL"]


def headers(key):
    made = {"Authorization": f"Bearer {key}"}
    made["X-Trace"] = "1"
    return made


print(requests.post(BASE + "/chat-messages", headers=headers("k"), json={"query": "q"}).json()["answer"])
