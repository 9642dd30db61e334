"""Dify's console API, as far as the kit uses it: claiming, signing in, apps, keys.

Routes and bodies: Dify's api/controllers/console, the same in all supported releases.
"""

import base64
import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from infra.resources import console_transport as transport
from infra.resources.console_transport import Answer, ContainerMissingError, Request, TransportError

READY_SECONDS = 60
PAGE = 100
# A DSL newer than Dify knows has to be confirmed; Dify then imports what it understands.
PENDING, COMPLETED, WITH_WARNINGS = "pending", "completed", "completed-with-warnings"
CONSOLE = "/console/api"


class ConsoleError(Exception):
    """Dify refused. The message says what, why, and what to do; it never contains a secret."""


class LoginError(ConsoleError):
    """The admin's credentials were refused."""


class NotFoundError(ConsoleError):
    """The object does not exist (any more)."""


class _TryAgainError(Exception):
    """The api is starting; kept inside this module."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """The cookies of a console session, under the names Dify gave them (some begin with `__Host-`)."""

    cookies: Mapping[str, str]

    def headers(self) -> dict[str, str]:
        """Return what every call of the session carries."""
        token = next((value for name, value in self.cookies.items() if name.endswith("csrf_token")), "")
        return {
            "Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()),
            "X-CSRF-Token": token,
        }


@dataclass
class _Sessions:
    """One login for each container and password in a run. Dify locks an account for a day after a few failures."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    known: dict[str, Session | LoginError] = field(default_factory=dict)


_SESSIONS = _Sessions()


@dataclass(frozen=True, kw_only=True)
class Console:
    """The console of the instance whose api runs in `container`.

    `url` is the console's public origin; cookies and links depend on it. `send` is the transport.
    """

    container: str
    url: str
    email: str
    password: str
    send: Callable[[str, Request], Answer] = transport.send

    def setup_finished(self) -> bool:
        """Tell whether somebody has claimed the instance."""
        answer = self._call(Request(method="GET", path=f"{CONSOLE}/setup"), HTTPStatus.OK)
        return bool(answer.json().get("step") == "finished")

    def claim(self, name: str, init_password: str) -> None:
        """Pass the gate and make the admin. Raises ConsoleError when Dify refuses."""
        gate = self._call(
            Request(method="POST", path=f"{CONSOLE}/init", json_body={"password": init_password}),
            HTTPStatus.CREATED,
        )
        cookie = "; ".join(f"{key}={value}" for key, value in gate.cookies().items())
        self._call(
            Request(
                method="POST",
                path=f"{CONSOLE}/setup",
                headers={"Cookie": cookie},
                json_body={"email": self.email, "name": name, "password": self.password},
            ),
            HTTPStatus.CREATED,
        )

    def login(self) -> Session:
        """Return the session of this run, signing in when it is the first use. Raises LoginError."""
        identity = transport.container_id(self.container) if self.send is transport.send else self.container
        digest = hashlib.sha256(f"{self.email}\0{self.password}".encode()).hexdigest()
        key = f"{identity}:{digest}"
        with _SESSIONS.lock:
            if key not in _SESSIONS.known:
                _SESSIONS.known[key] = self._login()
            known = _SESSIONS.known[key]
        if isinstance(known, LoginError):
            raise LoginError(str(known))
        return known

    def _login(self) -> Session | LoginError:
        encoded = base64.b64encode(self.password.encode()).decode()
        body = {"email": self.email, "password": encoded, "language": "en-US", "remember_me": True}
        answer = self._send(Request(method="POST", path=f"{CONSOLE}/login", json_body=body))
        if answer.status == HTTPStatus.OK:
            return Session(cookies=answer.cookies())
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            return LoginError(
                f"Dify has locked the account {self.email} after wrong passwords; the lock ends by itself "
                "(dify:login.lockoutSeconds, 24 h by default)"
            )
        return LoginError(
            f"Dify refused the admin {self.email} ({answer.status} {_code(answer)}): the instance belongs to "
            "somebody else, or the password was changed in the console. Set dify:adminEmail and "
            "dify:adminPassword to the account that claimed it, or start with empty volumes"
        )

    def rename(self, name: str) -> None:
        """Change the admin's name."""
        self._signed("POST", "/account/name", {"name": name})

    def change_password(self, new: str) -> None:
        """Change the admin's password from this console's one to `new`."""
        body = {"password": self.password, "new_password": new, "repeat_new_password": new}
        self._signed("POST", "/account/password", body)

    def find_app(self, marker: str) -> dict[str, Any] | None:
        """Return the app whose description ends with `marker`, None when there is none."""
        page = 1
        while True:
            answer = self._signed("GET", f"/apps?page={page}&limit={PAGE}").json()
            for app in answer.get("data", []):
                if str(app.get("description") or "").endswith(marker):
                    return dict(app)
            if not answer.get("has_more"):
                return None
            page += 1

    def app(self, app_id: str) -> dict[str, Any]:
        """Return an app. Raises NotFoundError."""
        return dict(self._signed("GET", f"/apps/{app_id}").json())

    def import_app(self, dsl: str, app_id: str | None = None) -> str:
        """Import a DSL, over the app `app_id` when given, publish it, and return the app's id."""
        body: dict[str, Any] = {"mode": "yaml-content", "yaml_content": dsl}
        if app_id:
            body["app_id"] = app_id
        told = self._signed("POST", "/apps/imports", body).json()
        if told.get("status") == PENDING:
            told = self._signed("POST", f"/apps/imports/{told['id']}/confirm", {}).json()
        if told.get("status") not in {COMPLETED, WITH_WARNINGS} or not told.get("app_id"):
            raise ConsoleError(f"Dify did not import the app: {told.get('error') or told.get('status')}")
        imported = str(told["app_id"])
        if self.app(imported)["mode"] in {"advanced-chat", "workflow"}:
            self._signed("POST", f"/apps/{imported}/workflows/publish", {})
        return imported

    def delete_app(self, app_id: str) -> None:
        """Delete an app; one that is gone already is fine."""
        self._gone_is_fine("DELETE", f"/apps/{app_id}")

    def keys(self, app_id: str) -> list[dict[str, Any]]:
        """Return an app's keys. Raises NotFoundError when the app is gone."""
        return list(self._signed("GET", f"/apps/{app_id}/api-keys").json().get("data", []))

    def create_key(self, app_id: str) -> tuple[str, str]:
        """Make a key for an app and return its id and itself."""
        answer = self._signed("POST", f"/apps/{app_id}/api-keys", {}).json()
        return str(answer["id"]), str(answer["token"])

    def delete_key(self, app_id: str, key_id: str) -> None:
        """Delete a key; one that is gone already is fine."""
        self._gone_is_fine("DELETE", f"/apps/{app_id}/api-keys/{key_id}")

    def _gone_is_fine(self, method: str, path: str) -> None:
        try:
            self._signed(method, path)
        except NotFoundError:
            return

    def _signed(self, method: str, path: str, body: Any = None) -> Answer:  # noqa: ANN401  # JSON
        headers = self.login().headers()
        request = Request(method=method, path=f"{CONSOLE}{path}", headers=headers, json_body=body)
        return self._call(request, HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.NO_CONTENT)

    def _call(self, request: Request, *wanted: HTTPStatus) -> Answer:
        answer = self._send(request)
        if answer.status in wanted:
            return answer
        told = answer.json()
        message = told.get("message", "") if isinstance(told, dict) else ""
        text = f"{request.method} {request.path} answered {answer.status} {_code(answer)}: {message}".rstrip(
            ": "
        )
        if answer.status == HTTPStatus.NOT_FOUND:
            raise NotFoundError(text)
        raise ConsoleError(f"{text}{_hint(_code(answer))}")

    def _send(self, request: Request) -> Answer:
        """Send, again while the api is starting; never again once Dify has judged the request."""

        def once() -> Answer:
            try:
                answer = self.send(self.container, request)
            except ContainerMissingError:
                raise
            except TransportError as problem:
                raise _TryAgainError(str(problem)) from problem
            if answer.status in {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE}:
                raise _TryAgainError(f"{request.path} answered {answer.status}")
            return answer

        try:
            return Retrying(
                retry=retry_if_exception_type(_TryAgainError),
                stop=stop_after_delay(READY_SECONDS),
                wait=wait_exponential(multiplier=0.5, max=5),
            )(once)
        except RetryError as problem:
            last = problem.last_attempt.exception()
            raise ConsoleError(f"Dify's api did not answer within {READY_SECONDS} s; last: {last}") from None


def _code(answer: Answer) -> str:
    told = answer.json()
    return str(told.get("code", "")) if isinstance(told, dict) else ""


def _hint(code: str) -> str:
    hints = {
        "init_validate_failed": "; dify:initPassword is not the INIT_PASSWORD that the api runs with",
        "max_keys_exceeded": "; delete keys of this app in Dify's console: it allows ten",
        "already_setup": "; somebody claimed the instance a moment ago",
    }
    return hints.get(code, "")
