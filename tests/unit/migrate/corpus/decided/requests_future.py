"""A client."""

from __future__ import annotations

from os import environ

import requests

BASE = environ["DIFY_URL"]
r = requests.post(f"{BASE}/chat-messages", headers={"Authorization": "Bearer app-secret"}, json={"query": "hello", "user": "u"}, timeout=5)
print(r.json()["answer"])
