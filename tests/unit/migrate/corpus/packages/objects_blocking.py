# The package dify-client-python.
import os

from dify_client import Client, models

client = Client(api_key="app-secret", api_base=os.environ["DIFY_URL"])
request = models.ChatRequest(query="hello", inputs={}, user="u", response_mode=models.ResponseMode.BLOCKING)
response = client.chat_messages(request, timeout=30.0)
print(response.answer)
