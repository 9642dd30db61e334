# The package dify-client: its address goes into another name too.
from dify_client import ChatClient

client = ChatClient("app-secret")
address = client.base_url = "https://dify.example/v1"
print(address, client.create_chat_message({}, "q", "u").json()["answer"])
