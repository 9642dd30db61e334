# The package dify-client, a stream.
import json
import os

from dify_client import ChatClient, CompletionClient


class Bot:
    def __init__(self):
        self.client = ChatClient(api_key="app-secret")
        self.client.base_url = os.environ["DIFY_URL"]

    def ask(self, question):
        response = self.client.create_chat_message({}, question, "u", response_mode="streaming", conversation_id=None)
        for line in response.iter_lines(decode_unicode=True):
            line = line.split("data:", 1)[-1]
            if line.strip():
                if line.startswith("event:"):
                    continue
                event = json.loads(line.strip())
                print(event.get("answer", ""), end="")
        print()


Bot().ask("hello")
