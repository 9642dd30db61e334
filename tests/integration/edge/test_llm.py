"""The LLM proxy with OpenAI's own client, against stand-ins of upstreams over TLS."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from tests.integration.edge.llm import LlmEdge

ASKED: Any = [{"role": "user", "content": "Hello"}]
TEXT = "The quick brown 狐 jumps"


@pytest.fixture(scope="module")
def llm(open_directory: Callable[[], Path]) -> Iterator[LlmEdge]:
    """One edge with the LLM proxy, for all tests of this file."""
    one = LlmEdge(open_directory())
    try:
        yield one
    finally:
        one.remove()


def client(llm: LlmEdge, caller: str = "alice", **options: object) -> OpenAI:
    given = {"api_key": llm.keys[caller], "base_url": f"{llm.url}/llm/v1", "max_retries": 0, "timeout": 15}
    return OpenAI(**(given | options))  # type: ignore[arg-type]


def test_chat(llm: LlmEdge) -> None:
    answer = client(llm).chat.completions.create(model="gpt-4.1", messages=ASKED)

    assert answer.choices[0].message.content == TEXT
    assert answer.id == "chat-first"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 18
