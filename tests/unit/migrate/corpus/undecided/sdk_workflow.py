# The package dify-client-python: a workflow.
from dify_client import Client, models

client = Client(api_key="app-secret")
print(client.run_workflows(models.WorkflowsRunRequest(inputs={}, user="u", response_mode="blocking")))
