"""The small Dify with OAuth, as clients meet it on a bad day: refusals, tokens that end early, a stream in pieces."""

import base64
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from joserfc import jwt

from tests.unit.smoke_oauth_upstream import CLIENT, INVALID, SECRET, SIGNING, OAuthHandler
from tests.unit.smoke_upstream import Refused, serving

MODEL_KEY = "dkp_UnitTestModelKey"
# Longer than a "data: {", shorter than an event.
PIECE_BYTES = 37


@dataclass(kw_only=True)
class Day:
    """What happens, and what happened."""

    # Answers to the next requests on /v1, before any other: status and headers.
    refusals: list[tuple[int, Mapping[str, str]]] = field(default_factory=list)
    # The same for the token endpoint.
    token_refusals: list[tuple[int, Mapping[str, str]]] = field(default_factory=list)
    # How long the next tokens live; 3600 s when there is none.
    lives: list[int] = field(default_factory=list)
    # How many of the first tokens are revoked as soon as they are given out.
    revoked: int = 0
    tokens: list[str] = field(default_factory=list)
    # Bearer and body of every request on /v1 and /llm/v1.
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    url: str = ""
    # Who gets tokens, by which secret.
    client: tuple[str, str] = (CLIENT, SECRET)

    @property
    def bearers(self) -> list[str]:
        """The credential of every request."""
        return [bearer for bearer, _ in self.requests]


class ClientsHandler(OAuthHandler):
    """One request."""

    day: ClassVar[Day]

    def limits(self) -> None:
        """Refuse what the day says."""
        refusals = self.day.token_refusals if self.path == "/oauth/token" else self.day.refusals
        if refusals:
            status, headers = refusals.pop(0)
            raise Refused(status, INVALID if status == 401 else {"error": "refused"}, **headers)

    def route(self, body: dict[str, Any]) -> None:
        if urlsplit(self.path).path == "/llm/v1/chat/completions":
            self.complete(body)
        else:
            super().route(body)

    def answer(self) -> None:
        if not self.path.startswith("/oauth/"):
            self.day.requests.append((self.bearer(), {}))
        super().answer()

    def body(self) -> dict[str, Any]:
        found = super().body()
        if not self.path.startswith("/oauth/"):
            self.day.requests[-1] = (self.bearer(), found)
        return found

    def bearer(self) -> str:
        return str(self.headers.get("Authorization", "")).partition(" ")[2]

    def token(self, form: dict[str, Any]) -> None:
        assert form["grant_type"] == "client_credentials"
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            pair = base64.b64decode(given).decode().partition(":")
            form = form | {"client_id": unquote(pair[0]), "client_secret": unquote(pair[2])}
        self.client(form)
        life = self.day.lives.pop(0) if self.day.lives else 3600
        # The token itself outlives the test: what counts is when the client renews it.
        claims = {"exp": int(time.time()) + 86_400, "scope": "chat", "jti": secrets.token_hex(8)}
        token = jwt.encode({"alg": "ES256", "kid": SIGNING.kid}, claims, SIGNING)
        self.day.tokens.append(token)
        if len(self.day.tokens) <= self.day.revoked:
            self.revoked.add(token)
        self.send(200, {"access_token": token, "token_type": "Bearer", "expires_in": life, "scope": "chat"})

    def client(self, form: dict[str, Any]) -> None:
        if (form["client_id"], form["client_secret"]) != self.day.client:
            raise Refused(401, {"error": "invalid_client", "error_description": "Refused"})

    def chat(self, body: dict[str, Any]) -> None:
        self.authenticate()
        if not isinstance(body.get("inputs"), dict):
            raise Refused(400, {"code": "invalid_param", "message": "inputs is required", "status": 400})
        super().chat(body)

    def events(self, common: dict[str, Any], answer: str) -> Iterator[bytes]:
        """Yield the events in the order of 1.14 and later, cut wherever it happens: also inside of a letter."""
        told = [json.loads(event[6:]) for event in super().events(common, f"{answer} \N{EM DASH} 好")]
        # The end of the workflow comes behind that of the message; what a defect took away is in neither place.
        told.sort(key=lambda event: event["event"] == "workflow_finished")
        lines = [f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in told]
        ping = "event: ping\n\n"
        whole = "".join([ping, lines[0], ping, *lines[1:]]).encode()
        for start in range(0, len(whole), PIECE_BYTES):
            yield whole[start : start + PIECE_BYTES]

    def complete(self, body: dict[str, Any]) -> None:
        if self.bearer() != MODEL_KEY:
            raise Refused(401, {"error": {"message": "no such key"}})
        said = f"You said: {body['messages'][-1]['content']}"
        common = {"id": "chatcmpl-1", "created": 1, "model": body["model"]}
        if body.get("stream"):
            chunk = common | {"object": "chat.completion.chunk"}
            deltas = [{"role": "assistant", "content": said[:6]}, {"content": said[6:]}]
            lines = [json.dumps(chunk | {"choices": [{"index": 0, "delta": delta}]}) for delta in deltas]
            self.stream(iter(f"data: {line}\n\n".encode() for line in [*lines, "[DONE]"]))
            return
        message = {"role": "assistant", "content": said}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        self.send(200, common | {"object": "chat.completion", "choices": [choice]})


@contextmanager
def serving_clients(*, defects: tuple[str, ...] = (), **happens: Any) -> Iterator[Day]:
    """Serve a day on a free port of 127.0.0.1."""
    day = Day(**happens)
    with serving(*defects, kind=type("DayHandler", (ClientsHandler,), {"day": day})) as upstream:
        day.url = upstream.url
        yield day
