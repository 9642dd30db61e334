# Knowledge base.
import os

import requests

BASE = os.environ["DIFY_URL"]
KEY = "app-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}

r = requests.get(f"{BASE}/datasets", headers=HEADERS)
