"""The package dify-client, as its own page shows it."""

import os

from dify_client import ChatClient  # Dify

api_key = "app-secret"
chat_client = ChatClient(api_key)
chat_client.base_url = os.environ["DIFY_URL"]

chat_response = chat_client.create_chat_message(inputs={}, query="hello", user="u", response_mode="blocking")
chat_response.raise_for_status()

result = chat_response.json()
print(result.get("answer"))
