import os
from urllib.parse import urljoin

import requests

BASE = os.environ["DIFY_URL"] + "/"
ROUTE = "chat-messages"
HEADERS = {"Authorization": "Bearer app-secret"}

reply = requests.post(urljoin(BASE, ROUTE), headers=HEADERS, json={"query": "one", "user": "ana"})
print(reply.json()["answer"])
reply_two = requests.post(urljoin(BASE, "chat-messages"), headers=HEADERS, json={"query": "two", "user": "ana"})
print(reply_two.json()["answer"])
