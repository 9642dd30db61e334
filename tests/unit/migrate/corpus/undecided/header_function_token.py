import os

import requests

BASE = os.environ["DIFY_URL"]


def token():
    return requests.post(BASE + "/oauth/token", data={"grant_type": "client_credentials"}).json()["access_token"]


def headers():
    return {"Authorization": f"Bearer {token()}"}


print(requests.post(BASE + "/chat-messages", headers=headers(), json={"query": "q"}).json()["answer"])
