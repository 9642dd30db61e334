import os

import requests

BASE = os.environ["DIFY_URL"]

url = BASE + "/chat-messages"
if BASE:
    url = BASE + "/completion-messages"
print(requests.post(url, headers={"Authorization": "Bearer k"}, json={"query": "q"}).json()["answer"])
