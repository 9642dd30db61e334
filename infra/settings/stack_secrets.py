"""The secrets of a stack: whether each is set, encrypted, and of the required form."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from infra import hints
from infra.catalogue.published_defaults import PUBLISHED_DEFAULTS
from infra.settings.dify import Login, Mail, Storage
from infra.settings.given import SEALED
from infra.settings.reader import Section, snake
from infra.settings.secrets import (
    DATA_SECRETS,
    LLM_SECRETS,
    OAUTH_SECRETS,
    OUTBOUND_SECRETS,
    PEM_FILES,
    SHAPES,
    TLS_SECRETS,
    Shape,
)

if TYPE_CHECKING:
    import pulumi


@dataclass(frozen=True)
class Withheld:
    """Takes the place of a secret in settings that are read outside of Pulumi's program."""


def withhold(_: str) -> "pulumi.Output[str]":
    """Return a placeholder that no service can be given."""
    return cast("pulumi.Output[str]", Withheld())


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """Every secret, once. Optional ones are None when their feature is off."""

    admin_password: "pulumi.Output[str]"
    secret_key: "pulumi.Output[str]"
    init_password: "pulumi.Output[str]"
    postgres_password: "pulumi.Output[str]"
    redis_password: "pulumi.Output[str]"
    sandbox_api_key: "pulumi.Output[str]"
    plugin_daemon_key: "pulumi.Output[str]"
    plugin_inner_api_key: "pulumi.Output[str]"
    vector_store_api_key: "pulumi.Output[str]"
    agent_server_secret_key: "pulumi.Output[str]"
    agent_api_token: "pulumi.Output[str]"
    agent_sandbox_token: "pulumi.Output[str]"
    gateway_secret: "pulumi.Output[str] | None"
    mail_password: "pulumi.Output[str] | None"
    storage_secret_key: "pulumi.Output[str] | None"
    github_client_secret: "pulumi.Output[str] | None"
    google_client_secret: "pulumi.Output[str] | None"


class SecretReader:
    """Reads the secrets among the settings of a stack, and reports to their list of problems.

    A sealed secret is set and encrypted; its text, which is unknown, is not checked.
    """

    def __init__(
        self,
        top: Section,
        stack: str,
        encrypted: Collection[str],
        conceal: "Callable[[str], pulumi.Output[str]]",
    ) -> None:
        self._top = top
        self._problems = top.problems
        self._stack = stack
        self._encrypted = encrypted
        # Makes Pulumi's secret of a text.
        self.conceal = conceal

    def read(self, mail: Mail, storage: Storage, login: Login, *, gateway: bool) -> Secrets:
        """Read the secrets that services get; only to be used when no problem was reported."""
        needed: dict[str, bool] = {
            "gatewaySecret": gateway,
            "mailPassword": mail.type in {"resend", "sendgrid"} or bool(mail.username),
            "storageSecretKey": storage.type == "s3",
            "githubClientSecret": bool(login.github_client_id),
            "googleClientSecret": bool(login.google_client_id),
        }
        found = {
            snake(key): self._secret(key, SHAPES[key], required=needed.get(key, True))
            for key in SHAPES
            if key not in TLS_SECRETS | OAUTH_SECRETS | LLM_SECRETS | OUTBOUND_SECRETS | DATA_SECRETS
        }
        return Secrets(**found)  # type: ignore[arg-type]  # a missing required one was reported

    def is_set(self, key: str) -> bool:
        """Tell whether a secret is set, sealed or not."""
        return self._sealed(key) or bool(self._top.raw(key))

    def text(self, key: str, *, required: bool) -> str:
        """Return the text of a secret that is read here; empty for one that is not set, or sealed."""
        if self._sealed(key):
            return ""
        shape = SHAPES.get(key)
        value = self._top.text(key) if shape else self._pem(key)
        if not value:
            if required:
                other = "" if shape else ", or choose another dify:tls.mode"
                self._problems.add_secret(key, "the secret is not set", self._provide(key, shape) + other)
            return ""
        self.check_encrypted(key)
        if shape and (problem := shape.problem(value)):
            self._problems.add_secret(key, problem, shape.fix(key, self._stack))
        return value

    def by_name(self, key: str) -> "dict[str, Any] | None":
        """Return the secrets of an object by their names, which are read here; None when the names are sealed too."""
        if self._sealed(key):
            return None
        values = self._top.mapping(key)
        if values:
            self.check_encrypted(key)
        return values

    def _sealed(self, key: str) -> bool:
        return self._top.raw(key) is SEALED

    def _pem(self, key: str) -> str:
        """Read text of several lines."""
        value = self._top.raw(key)
        return value.strip() + "\n" if isinstance(value, str) and value.strip() else ""

    def check_encrypted(self, key: str) -> None:
        """Report a secret that is stored in plain text."""
        if key not in self._encrypted:
            self._problems.add_secret(
                key, "is stored in plain text", f"set it again: `{hints.assign(key, stack=self._stack)}`"
            )

    def _secret(self, key: str, shape: Shape, *, required: bool) -> "pulumi.Output[str] | None":
        if self._sealed(key):
            return self.conceal("")
        value = self._top.text(key)
        if not value:
            if required:
                self._problems.add_secret(key, "the secret is not set", self._provide(key, shape))
            return None
        self.check_encrypted(key)
        if value in PUBLISHED_DEFAULTS:
            self._problems.add_secret(
                key, "is the value that upstream publishes", f"it is public; {shape.fix(key, self._stack)}"
            )
        elif problem := shape.problem(value):
            self._problems.add_secret(key, problem, shape.fix(key, self._stack))
        return self.conceal(value)

    def _provide(self, key: str, shape: Shape | None) -> str:
        """Return the command that makes a missing secret, or takes the operator's."""
        if shape and shape.command:
            return f"`{hints.kit(*shape.command, stack=self._stack)}` makes it"
        if shape and shape.generate:
            return f"`{hints.assign(key, '--generate', stack=self._stack)}` makes it"
        file = "" if shape else PEM_FILES[key]
        return f"`{hints.assign(key, stack=self._stack, stdin=file)}` takes it"
