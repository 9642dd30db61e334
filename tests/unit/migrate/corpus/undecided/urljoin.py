# The address by urljoin.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

from urllib.parse import urljoin

r = requests.post(urljoin(BASE, "chat-messages"), headers=HEADERS, json={"query": "q"})
