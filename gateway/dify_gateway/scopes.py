"""The scopes of access tokens. `infra/edge/scopes.py` says which routes each of them allows; nginx decides by it."""

from typing import Final

# Requests to models of the LLM proxy, at /llm/v1.
LLM: Final = "llm"
SCOPES: Final = ("chat", "workflows", "files", "conversations", LLM)
