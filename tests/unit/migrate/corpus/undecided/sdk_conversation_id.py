# The package dify-client: a conversation goes on.
from dify_client import ChatClient

client = ChatClient("app-secret")
first = client.create_chat_message(inputs={}, query="q", user="u").json()
second = client.create_chat_message(inputs={}, query="q", user="u", conversation_id=first["conversation_id"])
