import os

import requests


class Bot:
    def __init__(self):
        self.base = os.environ["DIFY_URL"]
        self.key = "app-secret"

    def _headers(self):
        return {"Authorization": f"Bearer {self.key}"}

    def ask(self, query):
        url = f"{self.base}/chat-messages"
        return requests.post(url, headers=self._headers(), json={"query": query, "user": "ana"}).json()["answer"]

    def info(self):
        return requests.get(f"{self.base}/parameters", headers=self._headers()).json()


print(Bot().ask("hello"))
