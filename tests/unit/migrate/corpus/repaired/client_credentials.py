# A class with client credentials, the token kept; it wants a stream and reads one document.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

import time


class Assistant:
    def __init__(self, identity, password, token_address, base):
        self.identity = identity
        self.password = password
        self.token_address = token_address
        self.base = base
        self.kept = None
        self.until = 0.0

    def token(self):
        if self.kept and self.until > time.time():
            return self.kept
        answer = requests.post(
            self.token_address,
            data={"grant_type": "client_credentials", "client_id": self.identity, "client_secret": self.password},
            timeout=5,
        ).json()
        self.kept = answer["access_token"]
        self.until = time.time() + answer.get("expires_in", 3600) - 300
        return self.kept

    def chat(self, question, user):
        token = self.token()
        response = requests.post(
            f"{self.base}/chat-messages",
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            json={"query": question, "user": user, "response_mode": "streaming", "conversation_id": ""},
            timeout=5,
        )
        return response.json()


assistant = Assistant("i", "s", BASE + "/oauth/token", BASE)
result = assistant.chat(question="hello", user="u")
print(result["answer"])
