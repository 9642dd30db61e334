"""Credentials of models and default models of a workspace, by Dify's console API.

Saving a credential calls the model's upstream, each time: values that Dify has already are not saved again. What Dify
answers to each request: tests/unit/workspace_upstream.py.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode

from infra.resources.console_client import Console, ConsoleError, NotFoundError, UnavailableError
from infra.resources.workspace import NoProviderError, call, patiently

START_SECONDS = 180
# Dify lists no model of a provider whose plugin has not started yet.
ACTIVE_SECONDS = START_SECONDS
PAUSE_SECONDS = 1.0
ACTIVE, DISABLED = "active", "disabled"
NOT_LISTED = "not listed, as while its plugin does not run"
# A provider with models of its own lists those too, also one that has the name of a model that was added.
_ADDED = "customizable-model"
IN_USE_ELSEWHERE = "another credential is in use"
# How Dify shows a secret: its first six and last two characters.
_HEAD, _STARS, _TAIL = 6, "*" * 12, 2
_GONE = "Credential record not found"
_NO_MODEL = "Model {model} does not exist."
_VALIDATION = (
    "Credentials validation failed",
    "An error occurred during credentials validation",
    "Error code: ",
)
_Found = TypeVar("_Found")


class ValidationError(ConsoleError):
    """The upstream did not answer the request by which Dify checks a credential. Nothing was changed."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a credential belongs: to a model of a provider, or without a model to the whole provider."""

    provider: str
    model: str = ""
    type: str = ""

    @property
    def of(self) -> dict[str, str]:
        """The fields that name the model."""
        return {"model": self.model, "model_type": self.type} if self.model else {}

    @property
    def level(self) -> str:
        """The path whose subpaths are the credentials."""
        return f"/model-providers/{self.provider}{'/models' if self.model else ''}"

    def __str__(self) -> str:
        """Return what messages call it."""
        return f"model {self.model} of {self.provider}" if self.model else f"provider {self.provider}"


@dataclass(frozen=True, kw_only=True)
class Credential:
    """A credential with its name. All values are texts; `secrets` names those that are secret."""

    name: str
    values: Mapping[str, str]
    secrets: frozenset[str] = frozenset()

    @property
    def hidden(self) -> list[str]:
        """The values that no message may contain."""
        return [self.values[name] for name in self.secrets if self.values.get(name)]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What Dify has: the credential's id (empty: none of that name), its values with masked secrets, and its state.

    `current`: it is the one in use. `state` is `active`, or what else keeps the model from being used.
    """

    id: str
    values: Mapping[str, str]
    current: bool
    state: str


@dataclass(frozen=True, kw_only=True)
class Models:
    """The models of the console's workspace. The seconds and `pause` are smaller in tests."""

    console: Console
    start_seconds: float = START_SECONDS
    active_seconds: float = ACTIVE_SECONDS
    pause: float = PAUSE_SECONDS

    def look(self, place: Place, name: str) -> Stored:
        """Return what Dify has of the credential `name`. Raises NoProviderError."""
        path = f"{place.level}/credentials"
        found = self._read(path, place.of) if place.model else self._configuration(place.provider)
        ids = {str(one["credential_name"]): str(one["credential_id"]) for one in _available(found)}
        if name not in ids:
            return Stored(id="", values={}, current=False, state="absent")
        current = found.get("current_credential_id") == ids[name]
        state = ACTIVE if current else IN_USE_ELSEWHERE
        if current and place.model:
            state = self._state(place)
        else:
            found = self._read(path, place.of | {"credential_id": ids[name]})
        values = {str(key): str(value) for key, value in (found.get("credentials") or {}).items()}
        return Stored(id=ids[name], values=values, current=current, state=state)

    def save(self, place: Place, credential: Credential, *, force: bool = False) -> str:
        """Store the credential, use it, and return its id. Raises ValidationError, ConsoleError.

        Values that are the same by what Dify shows are not stored again, unless `force` is set.
        """
        key = self._patiently(lambda: self._store(place, credential, force=force), str(place))
        # By itself, so that what Dify has stored is not stored again.
        self._patiently(lambda: self._use(place, credential.name), str(place))
        return key

    def delete(self, place: Place, name: str) -> None:
        """Delete the credential `name`, and the model when it has no other. One that is gone is fine."""
        stored = self.look(place, name)
        if stored.id:
            self._delete(f"{place.level}/credentials", place.of | {"credential_id": stored.id}, place)
        if place.model and not _available(self._read(f"{place.level}/credentials", place.of)):
            self._delete(place.level, place.of, place)

    def default(self, kind: str) -> dict[str, str] | None:
        """Return provider and model of the default of a type.

        Where none is set, this makes Dify choose the first active one: it is asked only for types that are set.
        """
        found = call(self.console, "GET", f"/default-model?{urlencode({'model_type': kind})}").get("data")
        if not found:
            return None
        return {
            "provider": str((found.get("provider") or {}).get("provider", "")),
            "model": str(found.get("model", "")),
        }

    def set_defaults(self, defaults: Mapping[str, Mapping[str, str]]) -> None:
        """Set the default models by type. Raises ConsoleError for a model that Dify does not have."""
        settings = [{"model_type": kind, **one} for kind, one in defaults.items()]

        def setting() -> None:
            try:
                call(self.console, "POST", "/default-model", {"model_settings": settings})
            except (NotFoundError, UnavailableError):
                raise
            except ConsoleError as problem:
                refused = [
                    (kind, one) for kind, one in defaults.items() if _NO_MODEL.format(**one) in str(problem)
                ]
                if any(self._starts(kind, one) for kind, one in refused):
                    raise UnavailableError(str(problem)) from None
                raise

        self._patiently(setting, "default models")

    def _starts(self, kind: str, one: Mapping[str, str]) -> bool:
        """Tell whether a model that was refused is one of a plugin that has not started, or has started since.

        Dify has a credential for such a model, and does not list it before.
        """
        place = Place(provider=one["provider"], model=one["model"], type=kind)
        state = self._state(place)
        if state != NOT_LISTED:
            return state == ACTIVE
        try:
            return bool(self._read(f"{place.level}/credentials", place.of).get("current_credential_id"))
        except UnavailableError:
            raise
        except ConsoleError:
            # A provider to which no model can be added.
            return False

    def _patiently(self, action: Callable[[], _Found], what: str) -> _Found:
        return patiently(action, seconds=self.start_seconds, what=what)

    def _store(self, place: Place, credential: Credential, *, force: bool) -> str:
        """Store what differs, and return the credential's id."""
        try:
            stored = self.look(place, credential.name)
        except NoProviderError as problem:
            raise ConsoleError(
                f"{place}: {problem} List its plugin in dify:modelProviders.plugins, or correct the provider's name"
            ) from None
        path = f"{place.level}/credentials"
        body: dict[str, Any] = {**place.of, "name": credential.name}
        values = dict(credential.values)
        if not stored.id:
            self._write("POST", path, body | {"credentials": values}, place, credential)
            # The answer has no id.
            return self.look(place, credential.name).id
        if force or different(stored.values, credential):
            body |= {"credential_id": stored.id, "credentials": values}
            self._write("PUT", path, body, place, credential)
        return stored.id

    def _use(self, place: Place, name: str) -> None:
        """Use the credential, enable its model, and wait until it is active."""
        deadline = time.monotonic() + self.active_seconds
        while (stored := self.look(place, name)).state != ACTIVE:
            if not stored.current:
                # Not for the current one: Dify refuses that.
                body = {**place.of, "credential_id": stored.id}
                call(self.console, "POST", f"{place.level}/credentials/switch", body)
            elif stored.state == DISABLED:
                call(self.console, "PATCH", f"{place.level}/enable", place.of)
            if time.monotonic() > deadline:
                raise ConsoleError(
                    f"{place}: its state is {stored.state!r} after {self.active_seconds:.0f} s; the console shows it "
                    "in Settings, Model Provider"
                )
            time.sleep(self.pause)

    def _write(
        self, method: str, path: str, body: dict[str, Any], place: Place, credential: Credential
    ) -> None:
        try:
            call(self.console, method, path, body, secrets=credential.hidden)
        except (NotFoundError, UnavailableError):
            raise
        except ConsoleError as problem:
            text = str(problem)
            if any(sign in text for sign in _VALIDATION):
                raise ValidationError(
                    f"{place}: Dify calls the upstream before it stores a credential, and that failed; what Dify had "
                    f"stays. {text}. Check the upstream and its key (for those of dify:llm by the command "
                    "`keys check`), then deploy again"
                ) from None
            raise ConsoleError(f"{place}: {text}") from None

    def _state(self, place: Place) -> str:
        listed = call(self.console, "GET", place.level).get("data", [])
        for one in listed:
            if (one.get("model"), one.get("model_type"), one.get("fetch_from")) == (
                place.model,
                place.type,
                _ADDED,
            ):
                return str(one.get("status", ""))
        return NOT_LISTED

    def _configuration(self, provider: str) -> dict[str, Any]:
        """Return what Dify has of a provider's own credentials: their route has no list of them."""
        for one in call(self.console, "GET", "/model-providers").get("data", []):
            if one.get("provider") == provider:
                return dict(one.get("custom_configuration") or {})
        raise NoProviderError(f"Provider {provider} does not exist.")

    def _read(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        return call(self.console, "GET", f"{path}?{urlencode(query)}" if query else path)

    def _delete(self, path: str, what: Mapping[str, str], place: Place) -> None:
        """Delete, by body and query: one release reads the one, another the other, and neither minds both."""
        try:
            call(self.console, "DELETE", f"{path}?{urlencode(what)}" if place.model else path, dict(what))
        except (NotFoundError, UnavailableError):
            raise
        except ConsoleError as problem:
            if _GONE not in str(problem):
                raise


def _available(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(found.get("available_credentials") or [])


def different(stored: Mapping[str, str], credential: Credential) -> list[str]:
    """Return the fields whose stored values differ; secrets are compared by what Dify shows of them.

    A field that Dify does not have is one that the provider does not know: Dify drops it, so it is no difference.
    """
    return sorted(
        name
        for name, value in credential.values.items()
        if name in stored
        and stored[name] not in ({value, masked(value)} if name in credential.secrets else {value})
        and not (name in credential.secrets and set(stored[name]) == {"*"})
    )


def masked(value: str) -> str:
    """Return a secret as Dify shows it."""
    return f"{value[:_HEAD]}{_STARS}{value[-_TAIL:]}"
