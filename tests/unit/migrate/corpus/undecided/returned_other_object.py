# Another object has a method of the same name.
import os

import requests
from mine import other

BASE = os.environ["DIFY_URL"]
HEADERS = {"Authorization": "Bearer app-secret"}


class Client:
    def chat(self, question):
        r = requests.post(f"{BASE}/chat-messages", headers=HEADERS, json={"query": question, "user": "u"})
        return r.json()


print(Client().chat("a")["answer"], other.chat("b")["answer"])
