import os

import requests

BASE = os.environ["DIFY_URL"]


def send(path, body):
    return requests.post(BASE + path, headers={"Authorization": "Bearer k"}, json=body).json()


ask = send
print(send("/chat-messages", {"query": "q"})["answer"])
