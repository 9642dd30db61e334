import os

import requests

BASE = os.environ["DIFY_URL"]

URL = BASE + "/chat-messages"
HEADERS = {"Authorization": "Bearer k"}
print(requests.get(URL, headers=HEADERS).json())
