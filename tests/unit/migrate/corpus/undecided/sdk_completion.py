# The package dify-client: a completion app.
from dify_client import CompletionClient

client = CompletionClient("app-secret")
print(client.create_completion_message(inputs={"query": "q"}, response_mode="blocking", user="u").json()["answer"])
