"""The small Dify with an LLM proxy in front of it."""

from typing import Any, ClassVar
from urllib.parse import urlsplit

from tests.unit.smoke_oauth_upstream import SCOPES, OAuthHandler
from tests.unit.smoke_upstream import ALLOWED, Handler, Refused

CALLER_KEY = "dkp_UnitTestCaller4mZ8xQ2pLUnitTestCaller4mZ8xQ"
UPSTREAM_KEY = "sk-unit-test-upstream-4mZ8xQ2pL"
MODELS = ("gpt-4.1", "text-embedding-3-small")


class LlmHandler(Handler):
    """One request to an environment with the LLM proxy."""

    def route(self, body: dict[str, Any]) -> None:
        path = urlsplit(self.path).path
        if not path.startswith("/llm/") and path != "/api/chat":
            super().route(body)
            return
        self.caller(path)
        if path == "/llm/v1/models":
            served = (*MODELS, "gpt-2") if self.wrong("more-models") else MODELS
            self.reply({"object": "list", "data": [{"id": one} for one in served]})
        elif self.command != "POST" and not self.wrong("any-method"):
            raise self.error(405, "invalid_request_error", "method_not_allowed")
        elif body.get("model") not in MODELS and not self.wrong("any-model"):
            raise self.error(404, "invalid_request_error", "model_not_found")
        elif body.get("stream"):
            self.stream(iter(self.pieces()))
        else:
            content = "" if self.wrong("says-nothing") else "ready"
            self.reply({"choices": [{"message": {"role": "assistant", "content": content}}]})

    def pieces(self) -> list[bytes]:
        said = [b'data: {"choices":[{"delta":{"content":"ready"}}]}\n\n', b"data: [DONE]\n\n"]
        return said[:1] if self.wrong("cuts") else said

    def reply(self, body: Any) -> None:
        leaked = {"X-Upstream-Auth": f"Bearer {UPSTREAM_KEY}"} if self.wrong("leaks") else {}
        if self.wrong("repeats"):
            body = {**body, "caller": CALLER_KEY}
        self.send(200, body, leaked)

    def caller(self, path: str) -> None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given == CALLER_KEY:
            return
        if not given and (self.wrong("open") or (path == "/api/chat" and self.wrong("open-short"))):
            return
        if given and self.wrong("any-caller-key"):
            return
        raise self.error(401, "authentication_error", "unauthorized")

    def error(self, status: int, kind: str, code: str) -> Refused:
        body: Any = {"error": {"message": "Refused.", "type": kind, "param": None, "code": code}}
        if self.wrong("dify-errors"):
            body = {"code": code, "message": "Refused.", "status": status}
        headers = {"WWW-Authenticate": 'Bearer realm="edge"'} if status == 401 else {}
        if self.wrong("key-in-refusals") and status == 401:
            headers["X-Api-Key"] = UPSTREAM_KEY
        return Refused(status, body, **headers)

    def allows(self, origin: str) -> bool:
        if not self.path.startswith("/llm/"):
            return super().allows(origin)
        return bool(origin) and (origin == ALLOWED or self.wrong("any-origin"))

    def cors(self, status: int) -> list[tuple[str, str]]:
        found = super().cors(status)
        if not self.path.startswith("/llm/") or self.wrong("no-sdk-headers"):
            return found
        return [
            (name, f"{value}, X-Stainless-Lang" if name == "Access-Control-Allow-Headers" else value)
            for name, value in found
        ]


class TokenHandler(LlmHandler, OAuthHandler):
    """One request to an environment whose LLM proxy takes access tokens too."""

    granted: ClassVar[tuple[str, ...]] = (*SCOPES, "llm")

    def caller(self, path: str) -> None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given.count(".") != 2:
            super().caller(path)
        elif self.wrong("closed-to-tokens"):
            raise self.error(401, "authentication_error", "unauthorized")
        elif "llm" not in self.scopes(given) and not self.wrong("llm-without-scope"):
            raise self.error(403, "permission_error", "insufficient_scope")
