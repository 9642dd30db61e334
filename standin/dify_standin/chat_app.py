"""Chat apps without a graph: one prompt, one model, and knowledge bases in front of it."""

from collections.abc import Iterator
from typing import Any

from dify_standin import knowledge, llm_node, models, nodes
from dify_standin.errors import ApiError
from dify_standin.model_calls import CallError, Chat

Json = dict[str, Any]

MODES = frozenset({"chat"})
HISTORY = 10


def model_of(described: Json) -> models.Model:
    """Return the model of a chat app. Raises MissingModelError."""
    asked = described["model_config"]["model"]
    try:
        return models.callable_model(str(asked["provider"]), str(asked["name"]), "llm")
    except ApiError as problem:
        raise llm_node.MissingModelError(problem.message) from None


def execute(run: Json, described: Json) -> Iterator[Json]:
    """Run a chat app: its pieces, then `_spent`. Raises NodeError and MissingModelError."""
    settings, model = described["model_config"], model_of(described)
    query = str(run["system"]["sys.query"])
    found = _knowledge(settings, run["system"])
    messages = _messages(settings, run, query, found)
    parameters = dict(settings["model"].get("completion_params") or {})
    # An empty list of stops is an error at some endpoints.
    parameters = {name: value for name, value in parameters.items() if value != []}
    chat = Chat(model, messages, parameters, str(run["created_by"]["id"]))
    try:
        for piece in chat.pieces():
            yield {"event": "message", "answer": piece}
    except CallError as problem:
        raise nodes.NodeError(str(problem)) from None
    resources = [llm_node.resource_of(segment) for segment in found]
    yield {"event": "_spent", "usage": chat.usage.json(), "resources": resources}


def _knowledge(settings: Json, system: Json) -> list[Json]:
    asked = ((settings.get("dataset_configs") or {}).get("datasets") or {}).get("datasets") or []
    ids = [one["dataset"]["id"] for one in asked if one.get("dataset", {}).get("enabled", True)]
    if not ids:
        return []
    top_k = (settings.get("dataset_configs") or {}).get("top_k")
    node = {
        "query_variable_selector": ["sys", "query"],
        "dataset_ids": ids,
        "multiple_retrieval_config": {"top_k": top_k},
    }
    segments: list[Json] = knowledge.run_node(node, system).outputs["result"]
    return segments


def _messages(settings: Json, run: Json, query: str, found: list[Json]) -> list[Json]:
    prompt = str(settings.get("pre_prompt") or "")
    for name, value in run["inputs"].items():
        prompt = prompt.replace("{{" + name + "}}", str(value))
    if found:
        context = "\n".join(str(one["content"]) for one in found)
        prompt = f"Answer by this knowledge:\n{context}\n\n{prompt}".strip()
    earlier = llm_node.history(str(run["system"]["sys.conversation_id"]), HISTORY)
    system = [{"role": "system", "content": prompt}] if prompt else []
    return [*system, *earlier, {"role": "user", "content": query}]
