import os

import requests

BASE = os.environ["DIFY_URL"]


def send(method, path, body):
    return requests.request(method, BASE + path, headers={"Authorization": "Bearer k"}, json=body).json()


print(send("PUT", "/chat-messages", {"query": "q"})["answer"])
