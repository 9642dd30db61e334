"""Sessions of the gate, and pending sign-ins.

A session is stored in Redis. The browser's cookie has 256 random bits, Redis only their digest, so a reader of Redis
cannot take over a session. A pending sign-in is stored only in the browser that started it, sealed by a key that
only this service has: anyone can start one, and a store on the server could be filled by unauthenticated requests.
"""

import hashlib
import hmac
import json
import re
import secrets
import time
from dataclasses import dataclass
from typing import Any

from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from dify_gateway.gate_config import GateSettings
from dify_gateway.gate_provider import Person, Provider
from dify_gateway.state import State

ID = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
ID_BYTES = 32
# The time limit of a sign-in at the provider.
SIGN_IN_SECONDS = 600
SEAL = {"alg": "dir", "enc": "A256GCM"}
# At the sign-out the ID token is sent back to the provider, in a URL.
LONGEST_HINT = 3072


@dataclass(frozen=True, kw_only=True)
class Session:
    """A session: the user, its end (seconds of the epoch), and the ID token (empty when too long for a URL)."""

    subject: str
    email: str
    expires_at: int
    id_token: str


@dataclass(frozen=True, kw_only=True)
class SignIn:
    """A pending sign-in: Authlib's state data, and the path to return to."""

    data: dict[str, Any]
    path: str


class Sessions:
    """The sessions under one set of rules: a change of the rules invalidates all of them."""

    def __init__(self, state: State, settings: GateSettings) -> None:
        self._state = state
        self._rules = settings.rules
        self._seconds = settings.session_seconds
        # A secret that all workers share: the client's secret.
        secret = settings.client_secret.encode()
        self._key = OctKey.import_key(hmac.digest(secret, b"dify-gateway: sign-ins under way", "sha256"))

    def open(self, person: Person, id_token: str) -> str:
        """Store a new session and return its id. Raises UnavailableError."""
        made = secrets.token_urlsafe(ID_BYTES)
        stored = {
            "subject": person.subject,
            "email": person.email,
            "expires_at": int(time.time()) + self._seconds,
            "id_token": id_token if len(id_token) <= LONGEST_HINT else "",
        }
        self._state.keep(*self._name("session", made), value=json.dumps(stored), seconds=self._seconds)
        return made

    def find(self, given: str) -> Session | None:
        """Return a session that has not expired, None without one. One round trip. Raises UnavailableError."""
        if not ID.fullmatch(given):
            return None
        session = _session(self._state.find(*self._name("session", given)))
        # Redis expires it by its own clock; both clocks must agree.
        return session if session and session.expires_at > time.time() else None

    def close(self, given: str) -> Session | None:
        """Delete a session and return it, None without one. Raises UnavailableError."""
        if not ID.fullmatch(given):
            return None
        return _session(self._state.take(*self._name("session", given)))

    def begin(self, state: str, data: dict[str, Any], path: str) -> str:
        """Return the sealed cookie value that the browser must send to finish the sign-in with this `state`."""
        over = int(time.time()) + SIGN_IN_SECONDS
        stored = {"state": _digest(state), "rules": self._rules, "over": over, "data": data, "path": path}
        return jwe.encrypt_compact(SEAL, json.dumps(stored).encode(), self._key)

    def end(self, state: str, sealed: str) -> SignIn | None:
        """Return a pending sign-in once, None for an invalid, expired or used one. Raises UnavailableError."""
        try:
            stored = json.loads(
                jwe.decrypt_compact(sealed, self._key, algorithms=list(SEAL.values())).plaintext or b""
            )
        except (JoseError, ValueError):
            return None
        if not hmac.compare_digest(str(stored["state"]), _digest(state)) or stored["rules"] != self._rules:
            return None
        if stored["over"] <= time.time() or not self._state.use_once(
            "sign-in", _digest(sealed), stored["over"] + 1
        ):
            return None
        return SignIn(data=stored["data"], path=str(stored["path"]))

    def _name(self, kind: str, secret: str) -> tuple[str, ...]:
        return "gate", self._rules, kind, _digest(secret)


class Gate:
    """The gate: its settings, its provider and its sessions."""

    def __init__(self, settings: GateSettings, provider: Provider, state: State) -> None:
        self.settings = settings
        self.provider = provider
        self.sessions = Sessions(state, settings)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _session(stored: str | None) -> Session | None:
    return Session(**json.loads(stored)) if stored else None
