# A stream, whose events are handed out.
import json
import os

import httpx

BASE = os.environ["DIFY_URL"]
HEADERS = {"Authorization": "Bearer app-secret"}


def events():
    with httpx.stream("POST", f"{BASE}/chat-messages", headers=HEADERS, json={"query": "q", "user": "u", "response_mode": "streaming"}) as r:
        for line in r.iter_lines():
            if line.startswith("data:"):
                yield json.loads(line[5:])


print([event["answer"] for event in events()])
