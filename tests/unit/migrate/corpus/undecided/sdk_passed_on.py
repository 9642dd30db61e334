# The package dify-client: the client goes elsewhere.
from dify_client import ChatClient
from mine import use

use(ChatClient("app-secret"))
