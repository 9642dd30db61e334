"""Why a call of a Dify client package has no counterpart in OpenAI's API."""

_REASONS = {
    "feedback": "feedback has no counterpart; keep this call on Dify",
    "file": "files have no counterpart; keep this call on Dify",
    "conversation": "conversations have no counterpart; keep the messages in the client",
    "workflow": "workflows have no counterpart; keep this call on Dify",
    "completion": "completion apps keep their prompt in Dify; write the prompt into `messages`",
    "audio": "speech has no counterpart here; keep this call on Dify",
}


def reason_of(name: str) -> str:
    """Return the reason to leave a call of this method as it is."""
    known = next((why for word, why in _REASONS.items() if word in name.lower()), "")
    return known or f"`{name}` of the Dify client package has no counterpart"
