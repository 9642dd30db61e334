import os

import requests


class Dify:
    """Talks to an app; only its chat has a counterpart."""

    def __init__(self, base, key):
        self.base = base
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {key}"

    def _request(self, method, path, *, body=None):
        """Send a request, and fail with its status."""
        reply = self.session.request(method, self.base + "/" + path, json=body, timeout=30)
        if not reply.ok:
            raise RuntimeError(f"{path}: {reply.status_code}")
        return reply.json()

    def parameters(self):
        return self._request("GET", "parameters")

    def ask(self, query):
        data = self._request("POST", "chat-messages", body={"inputs": {}, "query": query, "user": "ana"})
        return data["answer"]

    def stop(self, task):
        return self._request("POST", f"messages/{task}/stop", body={"user": "ana"})


print(Dify(os.environ["DIFY_URL"], "app-secret").ask("hello"))
