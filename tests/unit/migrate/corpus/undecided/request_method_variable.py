import os

import requests

BASE = os.environ["DIFY_URL"]

method = "POST"
reply = requests.request(method, BASE + "/chat-messages", headers={"Authorization": "Bearer k"}, json={"query": "q"})
print(reply.json()["answer"])
