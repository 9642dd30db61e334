"""Authlib's client for Flask, with this service's provider metadata, storage and verification of ID tokens.

Authlib makes the sign-in URL with `state`, `nonce` and PKCE, compares `state`, and exchanges the code. Its own
store for pending sign-ins and its own verification of ID tokens are replaced: see docs/decisions/0009-console-gate.md.
"""

import hashlib
from typing import Any

from authlib.integrations.flask_client import FlaskIntegration, FlaskOAuth2App
from flask import g, request

from dify_gateway.gate_sessions import Gate, SignIn

# Seconds for the token and userinfo endpoints. Only a sign-in waits for them.
ANSWER_SECONDS = 5
NAME = "gate"


class Browser(FlaskIntegration):  # type: ignore[misc]  # Authlib has no types
    """Authlib's storage of a pending sign-in, bound to the browser that has the cookie of this sign-in.

    `flask.g` has the path to return to (`gate_path`) and receives the cookie that the answer must set (`gate_cookie`).
    """

    def __init__(self, gate: Gate) -> None:
        super().__init__(NAME)
        self._gate = gate

    def set_state_data(self, session: Any, state: str, data: dict[str, Any]) -> None:  # noqa: ANN401, ARG002  # Authlib's
        """Store Authlib's state data."""
        wanted = {name: data[name] for name in ("nonce", "code_verifier", "redirect_uri")}
        g.gate_cookie = (
            login_cookie(self._gate, state),
            self._gate.sessions.begin(state, wanted, g.gate_path),
        )

    def get_state_data(self, session: Any, state: str | None) -> dict[str, Any] | None:  # noqa: ANN401, ARG002
        """Return the state data once, to the browser that started the sign-in; None for any other."""
        cookie = request.cookies.get(login_cookie(self._gate, state or ""), "")
        found: SignIn | None = self._gate.sessions.end(state or "", cookie)
        g.gate_path = found.path if found else "/"
        return found.data if found else None

    def clear_state_data(self, session: Any, state: str | None) -> None:  # noqa: ANN401  # Authlib's
        """Do nothing: `get_state_data` has already removed the state data."""


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
        """Return an empty mapping: the endpoints come from `Provider`."""
        return {}

    def parse_id_token(self, token: dict[str, Any], nonce: str, **_: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return the claims of the ID token. Raises BadTokenError."""
        return self._gate.provider.id_claims(token.get("id_token"), nonce, token.get("access_token"))

    def userinfo_claims(self, token: dict[str, Any]) -> dict[str, Any]:
        """Return the claims of the userinfo endpoint; empty when the provider has none."""
        address = self._gate.provider.metadata().userinfo
        if not address:
            return {}
        reaching = self._reaching(self._gate.provider.ca_file)
        # Without its times: Authlib considers a fresh token of one minute expired.
        bearer = {"access_token": token.get("access_token", ""), "token_type": "Bearer"}
        answer = self.get(address, token=bearer, allow_redirects=False, **reaching)
        answer.raise_for_status()
        claims = answer.json()
        return claims if isinstance(claims, dict) else {}

    @staticmethod
    def _reaching(ca_file: str) -> dict[str, Any]:
        return {"timeout": ANSWER_SECONDS, "verify": ca_file or True}


def session_cookie(gate: Gate) -> str:
    """Return the name of the cookie with a session's id; nginx tests for the same name."""
    return f"{_prefix(gate)}dify_gate"


def login_cookie(gate: Gate, state: str) -> str:
    """Return the name of a sign-in's own cookie, so that sign-ins of two tabs are independent."""
    return f"{session_cookie(gate)}_{hashlib.sha256(state.encode()).hexdigest()[:8]}"


def login_cookies(gate: Gate) -> list[str]:
    """Return the names of this browser's cookies of pending sign-ins, the oldest first, as browsers send them."""
    return [name for name in request.cookies if name.startswith(f"{session_cookie(gate)}_")]


def _prefix(gate: Gate) -> str:
    # Browsers accept the prefix only from this host over https, and send the cookie to no other host.
    return "__Host-" if gate.settings.secure else ""
