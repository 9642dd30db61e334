"""Calls of a model through the plugin daemon, with the failures in Dify's words."""

import secrets
import time
from collections.abc import Iterator
from typing import Any

from dify_standin import models, plugins
from dify_standin.usage import Usage

Json = dict[str, Any]


class CallError(Exception):
    """A call of a model failed; the text goes to the caller."""


def _failure(model: models.Model, problem: Exception) -> CallError:
    if isinstance(problem, plugins.DaemonError):
        if problem.kind.startswith("PluginDaemon"):
            text = f"req_id: {secrets.token_hex(5)} {problem.kind}: {problem}"
        else:
            text = str(problem)
        return CallError(f"[{model.provider.label}] Error: {text}")
    return CallError("Request to Plugin Daemon Service failed-500")


class Chat:
    """One chat with a model. Its pieces come by `pieces`; what is known at its end is in the fields."""

    def __init__(self, model: models.Model, messages: list[Json], parameters: Json, user: str) -> None:
        self._model = model
        self._messages = messages
        self._parameters = parameters
        self._user = user
        self.text = ""
        self.finish_reason = "stop"
        self.usage = Usage()

    def pieces(self, *, stream: bool = True) -> Iterator[str]:
        """Yield the answer's pieces, and an empty one for its end and one for its usage. Raises CallError."""
        data = self._model.data(
            prompt_messages=self._messages, model_parameters=self._parameters, stop=[], stream=stream
        )
        begun, first = time.monotonic(), 0.0
        counted: Json = {}
        try:
            for piece in plugins.stream(self._model.provider.plugin, "llm/invoke", data, self._user):
                first = first or time.monotonic() - begun
                self.text += piece["content"]
                self.finish_reason = piece.get("finish_reason") or self.finish_reason
                counted = piece.get("usage") or counted
                yield piece["content"]
        except (plugins.DaemonError, plugins.LostError) as problem:
            raise _failure(self._model, problem) from None
        self.usage = Usage.of(counted, self._model.pricing, time.monotonic() - begun, first)

    def whole(self) -> str:
        """Return the answer in one piece. Raises CallError."""
        for _ in self.pieces(stream=False):
            pass
        return self.text


def embed(model: models.Model, texts: list[str], user: str = "") -> list[list[float]]:
    """Return a vector for each text. Raises CallError."""
    try:
        found = plugins.invoke(model.provider.plugin, "text_embedding/invoke", model.data(texts=texts), user)
    except (plugins.DaemonError, plugins.LostError) as problem:
        raise _failure(model, problem) from None
    vectors: list[list[float]] = found["embeddings"]
    return vectors
