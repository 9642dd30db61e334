"""The title of a new conversation, which the workspace's default model writes: one more call."""

import threading

from dify_standin import models, plugins, store
from dify_standin.errors import ApiError
from dify_standin.model_calls import CallError, Chat

PROMPT = "Name the subject of this message in a few words, in its language, without quotation marks:\n\n"
LONGEST = 75
PARAMETERS = {"max_tokens": 500, "temperature": 1}
# A workspace without any model is not asked for one.
_ANY = "select 1 from listed_models union select 1 from current_provider_credentials limit 1"


class Title:
    """The title of one conversation, written while the answer is."""

    def __init__(self, conversation: str, query: str, user: str) -> None:
        self._arguments = (conversation, query, user)
        self._thread: threading.Thread | None = None

    def start(self) -> "Title":
        """Begin to write it, when there is a model."""
        if store.row(_ANY):
            self._thread = threading.Thread(target=write, args=self._arguments, daemon=True)
            self._thread.start()
        return self

    def wait(self) -> None:
        """Wait until it is written."""
        if self._thread:
            self._thread.join()


def write(conversation: str, query: str, user: str) -> None:
    """Let the default model write a title and keep it; without one, or when it fails, the title stays."""
    try:
        found = models.default("llm")
        if found is None:
            return
        model = models.callable_model(found[0].name, found[1], "llm")
        title = Chat(model, [{"role": "user", "content": PROMPT + query}], PARAMETERS, user).whole().strip()
    except (ApiError, CallError, plugins.LostError):
        return
    if title:
        store.rows("update conversations set name = %s where id = %s", title[:LONGEST], conversation)
