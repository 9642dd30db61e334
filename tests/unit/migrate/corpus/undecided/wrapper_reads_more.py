import os

import requests

BASE = os.environ["DIFY_URL"]


def send(path, body):
    data = requests.post(BASE + path, headers={"Authorization": "Bearer k"}, json=body).json()
    return {"answer": data["answer"], "conversation": data["conversation_id"]}


print(send("/chat-messages", {"query": "q"})["answer"])
