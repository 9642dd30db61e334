# The package dify-client: the client is used from outside of its object.
from dify_client import ChatClient


class Bot:
    def __init__(self):
        self.client = ChatClient("app-secret")

    def ask(self, question):
        return self.client.create_chat_message({}, question, "u").json()["answer"]


bot = Bot()
print(bot.ask("hello"), bot.client.create_chat_message({}, "q", "u").json()["answer"])
