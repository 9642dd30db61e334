# The address in a local variable, and its route in a constant.
import os

import requests

BASE, ROUTE = os.environ["DIFY_URL"], "unused"
PATH = "/chat-messages"


def ask(query):
    url = BASE + PATH
    headers = {"Authorization": "Bearer app-secret"}
    return requests.post(url, headers=headers, json={"query": query, "user": "ana"}).json()["answer"]


print(ask("hello"))
