# Workflow run.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

r = requests.post(f"{BASE}/workflows/run", headers=HEADERS, json={"inputs": {}})
