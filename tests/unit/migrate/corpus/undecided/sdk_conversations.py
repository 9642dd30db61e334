# The package dify-client: conversations.
from dify_client import ChatClient

client = ChatClient("app-secret")
print(client.create_chat_message(inputs={}, query="q", user="u").json()["answer"])
print(client.get_conversations(user="u").json())
