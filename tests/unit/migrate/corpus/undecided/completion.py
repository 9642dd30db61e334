# Completion app.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

r = requests.post(f"{BASE}/completion-messages", headers=HEADERS, json={"inputs": {}})
