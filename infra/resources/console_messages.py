"""What Dify's answers say, and what of a request must not be in a message."""

import base64
from collections.abc import Collection

from infra.resources.console_transport import Answer, Request

_SECRET_FIELDS = ("password", "new_password", "repeat_new_password")


def encoded(password: str) -> str:
    """Return a password as the sign-in sends it."""
    return base64.b64encode(password.encode()).decode()


def code(answer: Answer) -> str:
    """Return the code of an error, empty where the answer has none."""
    result = answer.json()
    return str(result.get("code") or result.get("custom") or "")


def message(answer: Answer) -> str:
    """Return Dify's error message, in any of the shapes that it has."""
    result = answer.json()
    error = result.get("error")
    nested = error.get("message") if isinstance(error, dict) else error
    return " ".join(str(result.get("message") or nested or "").split())


def without_secrets(text: str, request: Request, secrets: Collection[str]) -> str:
    """Return the text without secrets: Dify's validation errors repeat their input."""
    body = request.json_body if isinstance(request.json_body, dict) else {}
    values = [
        *secrets,
        *map(encoded, secrets),
        *(str(body[name]) for name in _SECRET_FIELDS if body.get(name)),
    ]
    cookies = [pair.partition("=")[2] for pair in request.headers.get("Cookie", "").split("; ")]
    for secret in sorted({value for value in [*values, *cookies] if value}, key=len, reverse=True):
        text = text.replace(secret, "[hidden]")
    return text
