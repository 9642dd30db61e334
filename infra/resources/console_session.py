"""One sign-in a run. Dify locks an account for a day after a few wrong passwords, so none is tried twice."""

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass


class LoginError(Exception):
    """The console cannot be entered with the admin's credentials."""


class LoginRefusedError(LoginError):
    """Dify refuses the e-mail or the password."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """The cookies of a console session, under the names Dify gave them (some begin with `__Host-`)."""

    cookies: Mapping[str, str]

    def headers(self) -> dict[str, str]:
        """Return what every call of the session carries."""
        token = next((value for name, value in self.cookies.items() if name.endswith("csrf_token")), "")
        return {"Cookie": cookie_header(self.cookies), "X-CSRF-Token": token}


def cookie_header(cookies: Mapping[str, str]) -> str:
    """Return the value of a `Cookie` header."""
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


def session_key(identity: str, email: str, password: str) -> str:
    """Return the name of a session: one api container, one account, one password."""
    credentials = hashlib.sha256(f"{email}\0{password}".encode()).hexdigest()
    return f"{identity} {credentials}"


class Sessions:
    """The sessions of this process, and the refusals: a second attempt gets the first result."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Session | LoginError] = {}

    def get(self, key: str, sign_in: Callable[[], Session]) -> Session:
        """Return the session, after a first sign-in. Raises LoginError, the first one each time.

        Any other exception of `sign_in` (the api is down) is not stored.
        """
        with self._lock:
            if key not in self._known:
                self._known[key] = _tried(sign_in)
            return _unwrapped(self._known[key])

    def renew(self, key: str, stale: Session, renew: Callable[[], Session]) -> Session:
        """Replace a session that Dify no longer accepts, once for all who hold it. Raises LoginError."""
        with self._lock:
            if self._known.get(key, stale) is stale:
                self._known[key] = _tried(renew)
            return _unwrapped(self._known[key])

    def keep(self, key: str, session: Session) -> None:
        """Use a session for another key too: after its password changed."""
        with self._lock:
            self._known[key] = session

    def clear(self) -> None:
        """Forget everything: for tests, which are many runs in one process."""
        with self._lock:
            self._known.clear()


def _tried(attempt: Callable[[], Session]) -> Session | LoginError:
    try:
        return attempt()
    except LoginError as problem:
        return problem


def _unwrapped(known: Session | LoginError) -> Session:
    if isinstance(known, LoginError):
        raise type(known)(str(known))
    return known


SESSIONS = Sessions()
