# The package dify-oapi.
from dify_oapi.client import Client

print(Client.builder().build())
