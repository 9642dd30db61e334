import os

import requests

BASE = os.environ["DIFY_URL"]


def send(path, **more):
    return requests.post(BASE + path, headers={"Authorization": "Bearer k"}, **more).json()


print(send("/chat-messages", json={"query": "q"})["answer"])
