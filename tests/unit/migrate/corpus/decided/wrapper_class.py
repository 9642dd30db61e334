import os

import requests


class Dify:
    def __init__(self, base, key):
        self.base = base
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def _post(self, path, body):
        response = requests.post(f"{self.base}{path}", headers=self.headers, json=body, timeout=60)
        response.raise_for_status()
        return response.json()

    def ask(self, query, user):
        body = {"inputs": {}, "query": query, "response_mode": "blocking", "user": user}
        return self._post("/chat-messages", body)["answer"]

    def greet(self):
        return self._post("/chat-messages", body={"query": "hello", "response_mode": "blocking", "user": "ana"})["answer"]


dify = Dify(os.environ["DIFY_URL"], "app-secret")
print(dify.ask("one", "ana"))
print(dify.greet())
