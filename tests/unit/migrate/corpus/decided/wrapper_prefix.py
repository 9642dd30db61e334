import os

import requests

HOST = os.environ["DIFY_URL"].removesuffix("/dify")


def send(path, body):
    return requests.post(HOST + path, headers={"Authorization": "Bearer app-secret"}, json=body).json()


print(send("/dify/chat-messages", {"query": "q", "user": "ana"})["answer"])
