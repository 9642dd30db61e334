# The route in a constant.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

ROUTE = "/chat-messages"
r = requests.post(BASE + ROUTE, headers=HEADERS, json={"query": "q"})
