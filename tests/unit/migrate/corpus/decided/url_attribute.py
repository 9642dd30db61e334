import os

import requests


class Bot:
    def __init__(self, base, key):
        self.url = f"{base.rstrip('/')}/chat-messages"
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def ask(self, query):
        reply = requests.post(self.url, headers=self.headers, json={"query": query, "user": "ana"}, timeout=30)
        return reply.json().get("answer", "")


print(Bot(os.environ["DIFY_URL"], "app-secret").ask("hello"))
