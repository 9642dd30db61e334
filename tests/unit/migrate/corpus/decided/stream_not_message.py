# A stream, other events skipped.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

from json import loads

r = requests.post(f'{BASE}/chat-messages', headers=HEADERS, json={'query': 'hello', 'user': 'u', 'response_mode': 'streaming'}, stream=True, timeout=5)
for line in r.iter_lines():
    text = str(line, 'utf-8').strip()
    if text == '' or not text.startswith('data:'):
        continue
    event = loads(text[5:])
    if event['event'] != 'message':
        continue
    print(f"{event['answer']}", end='')
print()
