# The package dify-client, in one expression.
import os

from dify_client import ChatClient

client = ChatClient("app-secret")
client.base_url = os.environ["DIFY_URL"]
print(client.create_chat_message(inputs={}, query="q", user="u").json()["answer"])
