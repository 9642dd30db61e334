import os

import requests

BASE = os.environ["DIFY_URL"]


def send(path, body):
    return requests.post(BASE + path, headers={"Authorization": "Bearer k"}, json=body).json()


path = "/chat-messages"
print(send(path, {"query": "q"})["answer"])
