"""Authlib's client for Flask, on our provider's documents, our Redis and our reading of ID tokens.

Authlib makes the URL of the sign-in with `state`, `nonce` and PKCE, compares `state`, and exchanges the code. Its own
store for a sign-in under way and its own check of ID tokens are replaced: see docs/decisions/0009-console-gate.md.
"""

import hashlib
from typing import Any

from authlib.integrations.flask_client import FlaskIntegration, FlaskOAuth2App
from flask import g, request

from dify_gateway.gate_sessions import Gate, SignIn

# The provider's answer to a code, and about a person. A sign-in waits for it; nothing else does.
ANSWER_SECONDS = 5
NAME = "gate"


class Browser(FlaskIntegration):  # type: ignore[misc]  # Authlib has no types
    """Where Authlib keeps a sign-in under way: in Redis, for the one browser that has the cookie of this sign-in.

    `flask.g` tells where to return to (`gate_path`), and gets the cookie that the answer has to set (`gate_cookie`).
    """

    def __init__(self, gate: Gate) -> None:
        super().__init__(NAME)
        self._gate = gate

    def set_state_data(self, session: Any, state: str, data: dict[str, Any]) -> None:  # noqa: ANN401, ARG002  # Authlib's
        """Keep what Authlib wants back."""
        wanted = {name: data[name] for name in ("nonce", "code_verifier", "redirect_uri")}
        g.gate_cookie = (
            login_cookie(self._gate, state),
            self._gate.sessions.begin(state, wanted, g.gate_path),
        )

    def get_state_data(self, session: Any, state: str | None) -> dict[str, Any] | None:  # noqa: ANN401, ARG002
        """Return it once, to the browser that began; None for any other."""
        cookie = request.cookies.get(login_cookie(self._gate, state or ""), "")
        found: SignIn | None = self._gate.sessions.end(state or "", cookie)
        g.gate_path = found.path if found else "/"
        return found.data if found else None

    def clear_state_data(self, session: Any, state: str | None) -> None:  # noqa: ANN401  # Authlib's
        """Nothing: who asked for it took it away."""


class Client(FlaskOAuth2App):  # type: ignore[misc]  # Authlib has no types
    """Authlib's client of the provider."""

    def __init__(self, gate: Gate) -> None:
        provider, settings = gate.provider, gate.settings
        metadata = provider.metadata()
        super().__init__(
            Browser(gate),
            NAME,
            client_id=settings.client_id,
            client_secret=settings.client_secret,
            authorize_url=metadata.authorization,
            access_token_url=metadata.token,
            access_token_params={"allow_redirects": False, **self._reaching(provider.ca_file)},
            client_kwargs={
                "scope": " ".join(settings.scopes),
                "code_challenge_method": "S256",
                "token_endpoint_auth_method": metadata.auth_method,
            },
        )
        self._gate = gate

    def load_server_metadata(self) -> dict[str, Any]:
        """Return nothing: the endpoints come from documents that the provider's own code read."""
        return {}

    def parse_id_token(self, token: dict[str, Any], nonce: str, **_: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return the claims of the ID token. Raises BadTokenError."""
        return self._gate.provider.id_claims(token.get("id_token"), nonce, token.get("access_token"))

    def userinfo_claims(self, token: dict[str, Any]) -> dict[str, Any]:
        """Return what the provider tells about the person besides; nothing where it has no such endpoint."""
        address = self._gate.provider.metadata().userinfo
        if not address:
            return {}
        reaching = self._reaching(self._gate.provider.ca_file)
        # Without its times: Authlib takes one of a minute, which was made just now, for an old one.
        bearer = {"access_token": token.get("access_token", ""), "token_type": "Bearer"}
        answer = self.get(address, token=bearer, allow_redirects=False, **reaching)
        answer.raise_for_status()
        told = answer.json()
        return told if isinstance(told, dict) else {}

    @staticmethod
    def _reaching(ca_file: str) -> dict[str, Any]:
        return {"timeout": ANSWER_SECONDS, "verify": ca_file or True}


def session_cookie(gate: Gate) -> str:
    """Return the name of the cookie that holds a session's id; nginx looks for the same name."""
    return f"{_prefix(gate)}dify_gate"


def login_cookie(gate: Gate, state: str) -> str:
    """Return the name of a sign-in's own cookie: two tabs that sign in do not disturb each other."""
    return f"{session_cookie(gate)}_{hashlib.sha256(state.encode()).hexdigest()[:8]}"


def login_cookies(gate: Gate) -> list[str]:
    """Return the names of this browser's cookies of sign-ins under way, the oldest first, as browsers send them."""
    return [name for name in request.cookies if name.startswith(f"{session_cookie(gate)}_")]


def _prefix(gate: Gate) -> str:
    # Browsers then take it from this very host by https alone, and for no other host.
    return "__Host-" if gate.settings.secure else ""
