import json
import os

import requests

BASE = os.environ["DIFY_URL"]

payload = json.dumps({"query": "q"})
print(payload)
reply = requests.post(BASE + "/chat-messages", headers={"Authorization": "Bearer k"}, data=payload)
print(reply.json()["answer"])
