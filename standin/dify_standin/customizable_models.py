"""How the plugin of a provider describes a model that was added: label, features and properties of its credential."""

from typing import Any

from dify_standin.provider_catalogue import CUSTOMIZABLE

Json = dict[str, Any]

# What a credential switches on, and how Dify names that. The order is Dify's.
_FEATURES = (
    ("vision_support", "support", "vision"),
    ("video_support", "support", "video"),
    ("audio_support", "support", "audio"),
    ("document_support", "support", "document"),
    ("agent_thought_support", "supported", "agent-thought"),
    ("structured_output_support", "supported", "structured-output"),
)
_CALLS = {"function_call": "tool-call", "tool_call": "multi-tool-call"}


def described(model: str, model_type: str, values: Json) -> Json:
    """Return the schema of a model with the values of its credential."""
    return {
        "model": model,
        "model_type": model_type,
        "label": dict.fromkeys(("zh_Hans", "en_US"), values.get("display_name") or model),
        "fetch_from": CUSTOMIZABLE,
        "features": _features(model_type, values),
        "model_properties": _properties(model_type, values),
    }


def _features(model_type: str, values: Json) -> list[str] | None:
    if model_type != "llm":
        return None
    calls = [_CALLS[values["function_calling_type"]]] if values.get("function_calling_type") in _CALLS else []
    return calls + [name for field, value, name in _FEATURES if values.get(field) == value]


def _properties(model_type: str, values: Json) -> Json:
    context = {"context_size": int(values.get("context_size") or 4096)}
    if model_type == "llm":
        return {**context, "mode": values.get("mode", "chat")}
    if model_type == "text-embedding":
        # The real plugin says one, regardless of its credential.
        return {**context, "max_chunks": 1}
    return context
