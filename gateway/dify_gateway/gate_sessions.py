"""Sessions of the gate, and pending sign-ins.

A session is stored in Redis and named in the browser by a cookie of 256 random bits. Redis holds the digest of the
cookie, so reading Redis opens no session. A pending sign-in is stored only in the browser that began it, encrypted
with a key of this service: any visitor may begin one, and many of them would fill a store on the server.
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
# The longest time of a sign-in at the provider.
SIGN_IN_SECONDS = 600
SEAL = {"alg": "dir", "enc": "A256GCM"}
# The provider gets its ID token back at the sign-out, in a URL.
LONGEST_HINT = 3072


@dataclass(frozen=True, kw_only=True)
class Session:
    """A session: who it is, until when (seconds of the epoch), and the ID token (empty: too long for a URL)."""

    subject: str
    email: str
    expires_at: int
    id_token: str


@dataclass(frozen=True, kw_only=True)
class SignIn:
    """A sign-in under way: what Authlib wants back, and the path to return to."""

    data: dict[str, Any]
    path: str


class Sessions:
    """The sessions under one set of rules. A change of the rules ends all of them."""

    def __init__(self, state: State, settings: GateSettings) -> None:
        self._state = state
        self._rules = settings.rules
        self._seconds = settings.session_seconds
        # All workers have the client's secret, and no other service has it.
        secret = settings.client_secret.encode()
        self._key = OctKey.import_key(hmac.digest(secret, b"dify-gateway: sign-ins under way", "sha256"))

    def open(self, person: Person, id_token: str) -> str:
        """Keep a new session and return its id."""
        made = secrets.token_urlsafe(ID_BYTES)
        told = {
            "subject": person.subject,
            "email": person.email,
            "expires_at": int(time.time()) + self._seconds,
            "id_token": id_token if len(id_token) <= LONGEST_HINT else "",
        }
        self._state.keep(*self._name("session", made), value=json.dumps(told), seconds=self._seconds)
        return made

    def find(self, given: str) -> Session | None:
        """Return a session that is not over. One round trip. Raises UnavailableError."""
        if not ID.fullmatch(given):
            return None
        session = _session(self._state.find(*self._name("session", given)))
        # Redis ends it by its own clock; both have to agree.
        return session if session and session.expires_at > time.time() else None

    def close(self, given: str) -> Session | None:
        """End a session and return what it was."""
        if not ID.fullmatch(given):
            return None
        return _session(self._state.take(*self._name("session", given)))

    def begin(self, state: str, data: dict[str, Any], path: str) -> str:
        """Return what the browser has to bring along to end the sign-in that has this `state`."""
        over = int(time.time()) + SIGN_IN_SECONDS
        told = {"state": _digest(state), "rules": self._rules, "over": over, "data": data, "path": path}
        return jwe.encrypt_compact(SEAL, json.dumps(told).encode(), self._key)

    def end(self, state: str, sealed: str) -> SignIn | None:
        """Return a sign-in once, to the browser that began it. Raises UnavailableError."""
        try:
            told = json.loads(
                jwe.decrypt_compact(sealed, self._key, algorithms=list(SEAL.values())).plaintext or b""
            )
        except (JoseError, ValueError):
            return None
        if not hmac.compare_digest(str(told["state"]), _digest(state)) or told["rules"] != self._rules:
            return None
        if told["over"] <= time.time() or not self._state.use_once(
            "sign-in", _digest(sealed), told["over"] + 1
        ):
            return None
        return SignIn(data=told["data"], path=str(told["path"]))

    def _name(self, kind: str, secret: str) -> tuple[str, ...]:
        return "gate", self._rules, kind, _digest(secret)


class Gate:
    """The gate: its settings, its provider, and the sessions of those who passed it."""

    def __init__(self, settings: GateSettings, provider: Provider, state: State) -> None:
        self.settings = settings
        self.provider = provider
        self.sessions = Sessions(state, settings)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _session(stored: str | None) -> Session | None:
    return Session(**json.loads(stored)) if stored else None
