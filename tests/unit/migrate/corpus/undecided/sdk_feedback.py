# The package dify-client: feedback by its base class.
from dify_client import ChatClient, DifyClient

DifyClient("app-secret").message_feedback("m", "like", "u")
print(ChatClient("app-secret").create_chat_message({}, "q", "u").json()["answer"])
