# The package dify-client-python, a stream.
import os

from dify_client import Client
from dify_client.models import ChatRequest, ResponseMode, StreamEvent

with_key = Client(api_key="app-secret", api_base=os.environ["DIFY_URL"])
for chunk in with_key.chat_messages(ChatRequest(query="hello", user="u", response_mode=ResponseMode.STREAMING), timeout=30):
    if chunk.event == StreamEvent.MESSAGE:
        print(chunk.answer, end="")
    elif chunk.event == "message_end":
        break
print()
