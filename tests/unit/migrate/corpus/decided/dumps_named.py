import os
from json import dumps

import requests

URL = os.environ["DIFY_URL"] + "/chat-messages"


def ask(query):
    payload = dumps({"inputs": {}, "query": query, "user": "ana"}, ensure_ascii=False)
    headers = {"Authorization": "Bearer app-secret", "Content-Type": "application/json"}
    response = requests.post(URL, headers=headers, data=payload.encode("utf-8"))
    return response.json()["answer"]


def ask_again(query):
    body = {"inputs": {}, "query": query, "user": "ana"}
    headers = {"Authorization": "Bearer app-secret", "Content-Type": "application/json"}
    return requests.post(URL, headers=headers, data=dumps(body, indent=2)).json()["answer"]


print(ask("one"))
print(ask_again("two"))
