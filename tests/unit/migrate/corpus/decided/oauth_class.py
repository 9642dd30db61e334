# Token by client credentials, fetched before each call.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

class Client:
    def token(self):
        r = requests.post(BASE + "/oauth/token", data={"grant_type": "client_credentials", "client_id": "i", "client_secret": "s"}, timeout=5)
        return r.json()["access_token"]

    def ask(self, query, user):
        token = self.token()
        response = requests.post(
            f"{BASE}/chat-messages",
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            json={"query": query, "user": user, "response_mode": "blocking", "conversation_id": ""},
            timeout=5,
        )
        return response.json()["answer"]


print(Client().ask("hello", "u"))
