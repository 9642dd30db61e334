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
    streaming: bool = True

    @property
    def endpoint(self) -> str:
        """The URL that is asked."""
        return f"{self.url}/{'chat-messages' if self.kind == 'dify' else 'chat/completions'}"

    @property
    def body(self) -> dict[str, Any]:
        """The request."""
        if self.kind == "dify":
            mode = "streaming" if self.streaming else "blocking"
            return {"inputs": {}, "query": "ping", "user": USER, "response_mode": mode}
        message = {"role": "user", "content": "ping"}
        return {"model": self.model, "messages": [message], "stream": self.streaming, "max_tokens": 16}

    @property
    def headers(self) -> dict[str, str]:
        """The headers, with the credential."""
        return {"Authorization": f"Bearer {self.key}"}


@dataclass
class Reading:
    """The part of an answer received so far, in events or as a whole."""

    token: bool = False
    failed: bool = False
    done: bool = False
    conversation: str = ""

    def line(self, text: str) -> None:
        """Take a line of an event stream. Raises ValueError when its data is not a JSON object."""
        if not text.startswith("data:"):
            return
        data = text.removeprefix("data:").strip()
        if data == "[DONE]":
            self.done = True
            return
        event = self._taken(data)
        self.done = self.done or event.get("event") == "message_end"
        choices = event.get("choices") or [{}]
        self.token = self.token or bool(event.get("answer") or (choices[0].get("delta") or {}).get("content"))

    def whole(self, text: str) -> None:
        """Take the whole answer to a blocking request. Raises ValueError, LookupError or TypeError for another."""
        answer = self._taken(text)
        if not self.failed:
            said = answer["answer"] if "answer" in answer else answer["choices"][0]["message"]
            self.done = isinstance(said, str | dict)

    def _taken(self, text: str) -> dict[str, Any]:
        event = json.loads(text)
        if not isinstance(event, dict):
            raise ValueError("an event is no object")  # noqa: TRY004  # as json does
        self.conversation = self.conversation or str(event.get("conversation_id") or "")
        self.failed = self.failed or event.get("event") == "error" or "error" in event
        return event
