"""What is measured: a base URL, the API it speaks, and the credential."""

import json
from dataclasses import dataclass, field
from typing import Any

USER = "dify-kit-bench"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A base URL that ends before ``/chat-messages`` (dify) or ``/chat/completions`` (openai)."""

    name: str
    url: str
    kind: str
    key: str = field(repr=False)
    model: str = ""
    ca: str = ""

    @property
    def endpoint(self) -> str:
        """The URL that is asked."""
        return f"{self.url}/{'chat-messages' if self.kind == 'dify' else 'chat/completions'}"

    @property
    def body(self) -> dict[str, Any]:
        """The request, a streaming one."""
        if self.kind == "dify":
            return {"inputs": {}, "query": "ping", "user": USER, "response_mode": "streaming"}
        message = {"role": "user", "content": "ping"}
        return {"model": self.model, "messages": [message], "stream": True, "max_tokens": 16}

    @property
    def headers(self) -> dict[str, str]:
        """The headers, with the credential."""
        return {"Authorization": f"Bearer {self.key}"}


@dataclass
class Reading:
    """What the lines of one event stream have told so far."""

    token: bool = False
    failed: bool = False
    done: bool = False
    conversation: str = ""

    def line(self, text: str) -> None:
        """Take a line. Raises ValueError when its data is not a JSON object."""
        if not text.startswith("data:"):
            return
        data = text.removeprefix("data:").strip()
        if data == "[DONE]":
            self.done = True
            return
        event = json.loads(data)
        if not isinstance(event, dict):
            raise ValueError("an event is no object")  # noqa: TRY004  # as json does
        self.conversation = self.conversation or str(event.get("conversation_id") or "")
        name = event.get("event")
        self.failed = self.failed or name == "error" or "error" in event
        self.done = self.done or name == "message_end"
        choices = event.get("choices") or [{}]
        self.token = self.token or bool(event.get("answer") or (choices[0].get("delta") or {}).get("content"))
