"""The LLM node: its prompt, the call of its model, its pieces as they come, and what it says of itself."""

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dify_standin import models, nodes, store
from dify_standin.answers import Answers, Event
from dify_standin.errors import ApiError
from dify_standin.model_calls import CallError, Chat
from dify_standin.usage import Usage

Json = dict[str, Any]

DEFAULT_WINDOW = 20


class MissingModelError(Exception):
    """A node's model cannot be called, so the run does not begin; the text goes to the caller."""


@dataclass(kw_only=True)
class NodeResult:
    """What a node that calls others leaves: its outputs, and what its last event says besides."""

    inputs: Json = field(default_factory=dict)
    outputs: Json = field(default_factory=dict)
    process_data: Json = field(default_factory=dict)
    metadata: Json | None = None
    usage: Usage | None = None
    resources: list[Json] = field(default_factory=list)


def models_of(graph_nodes: Iterable[Json]) -> dict[str, models.Model]:
    """Return the model of each LLM node, by the node's id. Raises MissingModelError."""
    found = {}
    for node in graph_nodes:
        if node["data"]["type"] == "llm":
            asked = node["data"]["model"]
            try:
                found[str(node["id"])] = models.callable_model(
                    str(asked["provider"]), str(asked["name"]), "llm"
                )
            except ApiError as problem:
                raise MissingModelError(problem.message) from None
    return found


def run(
    node: Json, model: models.Model, variables: Mapping[str, Any], run: Json, answers: Answers
) -> Generator[Event, None, NodeResult]:
    """Run the node, yield its pieces where the app's answer shows them, and return what it leaves.

    Raises NodeError.
    """
    data, name = node["data"], str(node["id"])
    context, resources = _context(data, variables)
    messages = _prompt(data, variables, context, run)
    parameters = dict(data["model"].get("completion_params") or {})
    chat = Chat(model, messages, parameters, str(run["created_by"]["id"]))
    try:
        for piece in chat.pieces():
            yield from answers.stream((name, "text"), piece)
    except CallError as problem:
        raise nodes.NodeError(str(problem)) from None
    usage = chat.usage.json()
    about = {"model_provider": model.provider.name, "model_name": model.name}
    return NodeResult(
        inputs={**about, **({"#context#": context} if context else {})},
        outputs={
            "text": chat.text,
            "reasoning_content": "",
            "usage": usage,
            "finish_reason": chat.finish_reason,
        },
        process_data={
            "model_mode": data["model"].get("mode", "chat"),
            "prompts": [{"role": one["role"], "text": one["content"], "files": []} for one in messages],
            "usage": usage,
            "finish_reason": chat.finish_reason,
            **about,
        },
        metadata=chat.usage.metadata(),
        usage=chat.usage,
        resources=resources,
    )


def _context(data: Json, variables: Mapping[str, Any]) -> tuple[str, list[Json]]:
    """Return the text that the prompt's context stands for, and the segments of knowledge in it."""
    asked = data.get("context") or {}
    if not asked.get("enabled") or not asked.get("variable_selector"):
        return "", []
    found = variables.get(".".join(asked["variable_selector"]))
    if not isinstance(found, list):
        return str(found or ""), []
    text = "\n".join(str(one["content"]) if isinstance(one, dict) else str(one) for one in found)
    known = [
        one
        for one in found
        if isinstance(one, dict) and one.get("metadata", {}).get("_source") == "knowledge"
    ]
    return text, [resource_of(one) for one in known]


def resource_of(segment: Json) -> Json:
    """Return a segment of knowledge as an answer's metadata shows it."""
    about = segment["metadata"]
    names = ("position", "dataset_id", "dataset_name", "document_id", "document_name", "data_source_type")
    return {
        **{name: about[name] for name in names},
        "segment_id": about["segment_id"],
        "retriever_from": "workflow",
        "score": about["score"],
        "hit_count": about["segment_hit_count"],
        "word_count": about["segment_word_count"],
        "segment_position": about["segment_position"],
        "index_node_hash": about["segment_index_node_hash"],
        "content": segment["content"],
        **dict.fromkeys(("page", "doc_metadata", "title", "files", "summary")),
    }


def _prompt(data: Json, variables: Mapping[str, Any], context: str, run: Json) -> list[Json]:
    template = data["prompt_template"]
    parts = template if isinstance(template, list) else [{"role": "user", "text": template.get("text", "")}]
    if jinja := [part for part in parts if part.get("edition_type") == "jinja2"]:
        raise nodes.NodeError(f"the stand-in fills no jinja2 prompt: {jinja[0].get('id', jinja[0]['role'])}")
    filled = [
        {
            "role": part["role"],
            "content": nodes.filled(part["text"].replace("{{#context#}}", context), dict(variables)),
        }
        for part in parts
    ]
    said = [part for part in filled if part["content"]]
    if not said:
        raise nodes.NodeError(
            "No prompt found in the LLM configuration. Please ensure a prompt is properly configured."
        )
    return _with_memory(data, said, run)


def _with_memory(data: Json, said: list[Json], run: Json) -> list[Json]:
    """Put the conversation's earlier messages before the last one, when the node has a memory."""
    memory, conversation = data.get("memory"), run["system"].get("sys.conversation_id")
    if not memory or not conversation:
        return said
    window = memory.get("window") or {}
    size = int(window.get("size") or DEFAULT_WINDOW) if window.get("enabled") else DEFAULT_WINDOW
    earlier = history(str(conversation), size)
    if said[-1]["role"] == "user":
        return [*said[:-1], *earlier, said[-1]]
    return [*said, *earlier, {"role": "user", "content": str(run["system"].get("sys.query", ""))}]


def history(conversation: str, size: int) -> list[Json]:
    """Return the last finished exchanges of a conversation as messages."""
    found = store.rows(
        "select query, answer from messages where conversation_id = %s and status = 'normal' "
        "order by created_at desc limit %s",
        conversation,
        size,
    )
    return [
        message
        for one in reversed(found)
        for message in (
            {"role": "user", "content": one["query"]},
            {"role": "assistant", "content": one["answer"]},
        )
    ]
