import json
import os

import requests


class Dify:
    def __init__(self):
        self.base = os.environ["DIFY_URL"]

    def _post(self, path, body):
        headers = {"Authorization": "Bearer app-secret"}
        with requests.post(f"{self.base}{path}", headers=headers, json=body, stream=True) as response:
            for line in response.iter_lines():
                if not line.startswith(b"data: "):
                    continue
                event = json.loads(line[6:])
                if event["event"] == "message":
                    print(event["answer"], end="")
        print()

    def ask(self, query):
        self._post("/chat-messages", {"inputs": {}, "query": query, "response_mode": "streaming", "user": "ana"})


Dify().ask("one")
Dify().ask("two")
