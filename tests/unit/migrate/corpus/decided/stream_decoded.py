# A stream, decoded line by line, left at its end.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

import json


def ask(question):
    with requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": question, "user": "u", "response_mode": "streaming", "inputs": {}}, stream=True, timeout=5) as r:
        r.raise_for_status()
        for line in r.iter_lines():
            if not line:
                continue
            line = line.decode("utf-8")
            if not line.startswith("data: "):
                continue
            data = line[len("data: "):]
            try:
                chunk = json.loads(data)
            except json.JSONDecodeError:
                continue
            kind = chunk.get("event")
            if kind == "message":
                yield chunk["answer"]
            elif kind == "error":
                raise RuntimeError(chunk["message"])
            elif kind == "message_end":
                return


print("".join(ask("hello")))
