"""Dify's console API, as far as the kit uses it: claiming, signing in, apps, keys.

Routes and bodies: Dify's api/controllers/console, the same in all supported releases.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from infra.resources.console_messages import code, encoded, message, without_secrets
from infra.resources.console_session import (
    SESSIONS,
    LoginError,
    LoginRefusedError,
    Session,
    Sessions,
    cookie_header,
    session_key,
)
from infra.resources.console_transport import (
    REQUEST_SECONDS,
    Answer,
    ContainerMissingError,
    NotReachedError,
    Request,
    Transport,
    TransportError,
)

CONSOLE = "/console/api"
PAGE = 100
DATASET_KEYS = "/datasets/api-keys"
# How long a call waits for an api that is starting.
PATIENCE_SECONDS = 60
# An import of a newer DSL version must be confirmed; Dify then imports what it supports.
PENDING, COMPLETED, WITH_WARNINGS = "pending", "completed", "completed-with-warnings"
# Dify imports over apps of these modes only, and only these have a draft to publish.
WORKFLOW_MODES = frozenset({"advanced-chat", "workflow"})
# On the storage volume, so that a recreated api container still has the notes of the one before. A directory:
# `.dify-kit` next to it is the marker file of init-permissions (infra.services.data).
NOTES = "/app/api/storage/.dify-kit-keys"
# Set where a stack is deployed whose state was lost: its API keys stay as they are.
KEEP_KEYS = "DIFY_KIT_KEEP_KEYS"

_HINTS = {
    "init_validate_failed": "; dify:initPassword is not the INIT_PASSWORD that the api runs with",
    "max_keys_exceeded": "; Dify allows ten keys an app, and ten of the knowledge API: delete some in the console",
    "invalid_password": "; dify:adminPassword needs 8 characters or more, letters and digits",
}
_Found = TypeVar("_Found")


class ConsoleError(Exception):
    """Dify refused. The message says what, why, and what to do; it never contains a secret."""


class NotFoundError(ConsoleError):
    """The object does not exist (any more)."""


class NotClaimedError(ConsoleError):
    """The instance is not claimed: it has no account, no app and no key."""


class UnavailableError(ConsoleError):
    """Dify did not process the request: its api or a service behind it is down."""


class _TryAgainError(Exception):
    """The api is starting; kept inside this module."""


@dataclass(frozen=True, kw_only=True)
class Console:
    """The console of one instance, for its admin.

    `url` is the console's public origin. `patience` is how many seconds a call waits for an api that is
    starting, `seconds` how long a request may take.
    """

    transport: Transport
    url: str
    email: str
    password: str
    patience: float = PATIENCE_SECONDS
    seconds: int = REQUEST_SECONDS
    sessions: Sessions = SESSIONS

    def setup_finished(self) -> bool:
        """Tell whether the instance is claimed."""
        return bool(self._open("GET", "/setup").json().get("step") == "finished")

    def claim(self, name: str, init_password: str) -> None:
        """Pass the gate and make the admin. Raises ConsoleError when Dify refuses.

        It returns also when the instance was claimed in the meantime: the sign-in shows whether by the kit's account.
        """
        if self.setup_finished():
            return
        cookies: dict[str, str] = {}
        if self._open("GET", "/init").json().get("status") != "finished":
            gate = self._send(self._request("POST", "/init", body={"password": init_password}))
            if code(gate) == "already_setup":
                return
            cookies = self._checked(self._request("POST", "/init"), gate).cookies()
        request = self._request(
            "POST",
            "/setup",
            headers={"Cookie": cookie_header(cookies)} if cookies else {},
            body={"email": self.email, "name": name, "password": self.password},
        )
        answer = self._send(request)
        if code(answer) != "already_setup":
            self._checked(request, answer)

    def sign_in(self) -> Session:
        """Return this run's session, made at the first use. Raises LoginError, NotClaimedError."""
        return self.sessions.get(self._key(self.password), self._login)

    def rename(self, name: str) -> None:
        """Change the admin's name."""
        self._signed("POST", "/account/name", {"name": name})

    def change_password(self, new: str) -> None:
        """Change the admin's password from this console's one to `new`; the session stays."""
        body = {"password": self.password, "new_password": new, "repeat_new_password": new}
        self._signed("POST", "/account/password", body)
        self.sessions.keep(self._key(new), self.sign_in())

    def find_app(self, marker: str, mode: str) -> str | None:
        """Return the id of the app of that mode whose description ends with `marker`.

        The oldest one, as a copy made in the console has the description of its original.
        """
        marked = [
            app
            for app in self._apps()
            if str(app.get("description") or "").endswith(marker) and app.get("mode") == mode
        ]
        oldest = min(marked, key=lambda app: int(app.get("created_at") or 0), default=None)
        return str(oldest["id"]) if oldest else None

    def app(self, app_id: str) -> dict[str, Any]:
        """Return an app. Raises NotFoundError."""
        return self._signed("GET", f"/apps/{app_id}").json()

    def import_app(self, dsl: str, mode: str, app_id: str | None = None) -> str:
        """Import a DSL, over the app `app_id` when given, publish it, and return the app's id."""
        body: dict[str, Any] = {"mode": "yaml-content", "yaml_content": dsl}
        if app_id:
            body["app_id"] = app_id
        result = self._signed("POST", "/apps/imports", body).json()
        if result.get("status") == PENDING:
            result = self._signed("POST", f"/apps/imports/{result.get('id')}/confirm", {}).json()
        if result.get("status") not in {COMPLETED, WITH_WARNINGS} or not result.get("app_id"):
            raise ConsoleError(f"Dify did not import the app: {result.get('error') or result.get('status')}")
        imported = str(result["app_id"])
        if mode in WORKFLOW_MODES:
            self._signed("POST", f"/apps/{imported}/workflows/publish", {})
        return imported

    def delete_app(self, app_id: str) -> None:
        """Delete an app with its keys and conversations; one that is gone already is fine."""
        self._gone_is_fine(f"/apps/{app_id}")

    def keys(self, app_id: str) -> set[str]:
        """Return the ids of an app's keys. Raises NotFoundError when the app is gone."""
        return self._keys(f"/apps/{app_id}/api-keys")

    def create_key(self, app_id: str, owner: str) -> tuple[str, str, str]:
        """Make the app's key for `owner` and return its id, itself, and why it was not noted (or nothing).

        Dify cannot name keys. The one that the same owner made before (a run was killed before it could
        remember it, or could not delete it) is known by a note on the storage volume, and deleted first. With
        `KEEP_KEYS` in the environment it is used again: the state is lost, and callers still have it.
        """
        return self._create_key(f"/apps/{app_id}/api-keys", app_id, owner)

    def delete_key(self, app_id: str, key_id: str) -> None:
        """Delete a key; one that is gone already is fine."""
        self._gone_is_fine(f"/apps/{app_id}/api-keys/{key_id}")

    def dataset_keys(self) -> set[str]:
        """Return the ids of the workspace's keys of the knowledge API."""
        return self._keys(DATASET_KEYS)

    def create_dataset_key(self, owner: str) -> tuple[str, str, str]:
        """Make a key of the knowledge API for `owner`, as `create_key` does for an app."""
        return self._create_key(DATASET_KEYS, "datasets", owner)

    def delete_dataset_key(self, key_id: str) -> None:
        """Delete a key of the knowledge API; one that is gone already is fine."""
        self._gone_is_fine(f"{DATASET_KEYS}/{key_id}")

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,  # noqa: ANN401  # JSON
        *,
        secrets: Collection[str] = (),
        content: tuple[str, bytes] | None = None,
    ) -> dict[str, Any]:
        """Send a request of the admin's, with JSON or with `content`, a type and a body of that type.

        Raises ConsoleError, without any of `secrets` in it.
        """
        return self._signed(method, path, body, secrets=secrets, content=content).json()

    def _keys(self, path: str) -> set[str]:
        return set(self._tokens(path))

    def _tokens(self, path: str) -> dict[str, str]:
        """Return id -> key: Dify's list has keys in full."""
        listed = self._signed("GET", path).json().get("data", [])
        return {str(key["id"]): str(key.get("token") or "") for key in listed}

    def _create_key(self, path: str, what: str, owner: str) -> tuple[str, str, str]:
        note = f"{NOTES}/{what}-{hashlib.sha256(owner.encode()).hexdigest()[:16]}"
        left = self._reached(lambda: self.transport.read_note(note))
        there = self._tokens(path) if left else {}
        if there.get(left) and os.environ.get(KEEP_KEYS):
            return left, there[left], ""
        if left in there:
            self._gone_is_fine(f"{path}/{left}")
        answer = self._signed("POST", path, {}, note=note)
        made = answer.json()
        if not made.get("id") or not made.get("token"):
            raise ConsoleError(f"Dify answered {answer.status} to a new API key, without the key")
        return str(made["id"]), str(made["token"]), answer.unnoted

    def _apps(self) -> Iterator[dict[str, Any]]:
        page = 1
        while True:
            result = self._signed("GET", f"/apps?page={page}&limit={PAGE}").json()
            yield from result.get("data", [])
            if not result.get("has_more"):
                return
            page += 1

    def _gone_is_fine(self, path: str) -> None:
        try:
            self._signed("DELETE", path)
        except NotFoundError:
            return

    def _key(self, password: str) -> str:
        return session_key(self.transport.identity(), self.email, password)

    def _login(self) -> Session:
        # Asked first, as an instance without accounts would count the attempt as a failure.
        if not self.setup_finished():
            raise NotClaimedError(f"the instance at {self.url} is not claimed")
        body = {"email": self.email, "password": encoded(self.password), "remember_me": True}
        answer = self._send(self._request("POST", "/login", body=body))
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise UnavailableError(f"POST {CONSOLE}/login answered {answer.status}")
        cookies = answer.cookies()
        if answer.status == HTTPStatus.OK and answer.json().get("result") == "success" and cookies:
            return Session(cookies=cookies)
        raise self._login_error(answer)

    def _login_error(self, answer: Answer) -> LoginError:
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            return LoginError(
                f"Dify has locked the account {self.email} after wrong passwords; the lock ends on its own "
                "(dify:login.lockoutSeconds, 24 h by default)"
            )
        if answer.status == HTTPStatus.FORBIDDEN:
            return LoginError(
                "Dify allows no sign-in with e-mail and password, which the kit needs: "
                "set dify:login.emailPassword to true"
            )
        if answer.status == HTTPStatus.OK:
            return LoginError(f"the account {self.email} has no workspace in this instance")
        return LoginRefusedError(
            f"Dify refused the admin {self.email} ({answer.status} {code(answer)}): the instance was "
            "claimed with another account, or the password was changed in the console. Two solutions: set "
            "dify:adminEmail and dify:adminPassword to the account that owns the instance; or, when its data "
            "is not needed, remove the stack with its volumes and deploy it again. (Dify locks an account "
            "for a day after six wrong passwords; each run tries once.)"
        )

    def _renewed(self, stale: Session) -> Session:
        """Return a new session for one that has expired: by its refresh token, else by signing in again."""
        headers = {"Cookie": cookie_header(stale.cookies)}
        answer = self._send(self._request("POST", "/refresh-token", headers=headers))
        cookies = answer.cookies()
        if answer.status == HTTPStatus.OK and cookies:
            return Session(cookies={**stale.cookies, **cookies})
        return self._login()

    def _signed(
        self,
        method: str,
        path: str,
        body: Any = None,  # noqa: ANN401  # JSON
        *,
        note: str = "",
        secrets: Collection[str] = (),
        content: tuple[str, bytes] | None = None,
    ) -> Answer:
        def request(session: Session) -> Request:
            kind = {"Content-Type": content[0]} if content else {}
            made = self._request(method, path, headers={**session.headers(), **kind}, body=body, note=note)
            return replace(made, content=content[1]) if content else made

        answer = self._send(request(session := self.sign_in()))
        if answer.status == HTTPStatus.UNAUTHORIZED:
            session = self.sessions.renew(self._key(self.password), session, lambda: self._renewed(session))
            answer = self._send(request(session))
        return self._checked(request(session), answer, secrets)

    def _open(self, method: str, path: str) -> Answer:
        request = self._request(method, path)
        return self._checked(request, self._send(request))

    def _request(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        body: Any = None,  # noqa: ANN401  # JSON
        note: str = "",
    ) -> Request:
        host = urlsplit(self.url).netloc
        return Request(
            method=method,
            path=f"{CONSOLE}{path}",
            headers={**({"Host": host} if host else {}), **(headers or {})},
            json_body=body,
            seconds=self.seconds,
            note=note,
        )

    def _checked(self, request: Request, answer: Answer, secrets: Collection[str] = ()) -> Answer:
        """Return a good answer. Raises ConsoleError for any other."""
        if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
            return answer
        said = ": ".join(part for part in (code(answer), message(answer)) if part)
        text = f"{request.method} {request.path} answered {answer.status} {said}".rstrip()
        text = without_secrets(text, request, (self.password, *secrets))
        if answer.status == HTTPStatus.NOT_FOUND:
            raise NotFoundError(text)
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise UnavailableError(f"{text}; the reason is in the api's log")
        raise ConsoleError(f"{text}{_HINTS.get(code(answer), '')}")

    def _send(self, request: Request) -> Answer:
        return self._reached(lambda: self._once(request))

    def _once(self, request: Request) -> Answer:
        answer = self.transport.send(request)
        if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
            raise _TryAgainError(f"{request.path} answered {answer.status}")
        return answer

    def _reached(self, action: Callable[[], _Found]) -> _Found:
        """Do it, again while the api is starting; never again what Dify may have carried out.

        Raises UnavailableError, ContainerMissingError.
        """
        try:
            return Retrying(
                retry=retry_if_exception_type((_TryAgainError, NotReachedError)),
                stop=stop_after_delay(self.patience),
                wait=wait_exponential(multiplier=0.25, max=3),
            )(action)
        except RetryError as problem:
            last = problem.last_attempt.exception()
            raise UnavailableError(
                f"Dify's api did not answer within {self.patience:.0f} s; last: {last}"
            ) from None
        except ContainerMissingError:
            raise
        except TransportError as problem:
            raise UnavailableError(str(problem)) from None
