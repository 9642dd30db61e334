# The parsed body is returned and read by the callers.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

class Client:
    def __init__(self, base: str, key: str) -> None:
        self.base, self.key = base, key

    def chat(self, question: str):
        response = requests.post(
            f"{self.base}/chat-messages",
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
            json={"query": question, "user": "u", "response_mode": "blocking", "conversation_id": ""},
            timeout=5,
        )
        if response.status_code != 200:
            raise RuntimeError(f"{response.status_code}: {response.text}")
        return response.json()


client = Client(BASE, KEY)
first = client.chat("one")
print(first["answer"])
print(client.chat("two")["answer"])
