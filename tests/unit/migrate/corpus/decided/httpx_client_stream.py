# Httpx, a client's stream in a generator.
import os

import httpx

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

import json


class Bot:
    def __init__(self) -> None:
        self.http = httpx.Client(base_url=BASE, headers=HEADERS, timeout=5)

    def ask(self, question: str):
        body = {"inputs": {}, "query": question, "response_mode": "streaming", "conversation_id": "", "user": "u"}
        with self.http.stream("POST", "/chat-messages", json=body) as response:
            response.raise_for_status()
            for line in response.iter_lines():
                if not line.startswith("data:"):
                    continue
                event: dict = json.loads(line[5:].strip())
                if event["event"] in {"message", "agent_message"}:
                    yield event["answer"]


for part in Bot().ask("hello"):
    print(part, end="")
print()
