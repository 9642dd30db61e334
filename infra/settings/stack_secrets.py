"""The secrets of a stack: whether each is set, encrypted, and of the shape that its reader takes."""

from dataclasses import dataclass

import pulumi

from infra.catalogue.published_defaults import PUBLISHED_DEFAULTS
from infra.settings.dify import Login, Mail, Storage
from infra.settings.reader import Section, snake
from infra.settings.secrets import LLM_SECRETS, OAUTH_SECRETS, SHAPES, TLS_SECRETS, Shape

NAMESPACE = "dify"


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """Every secret, once. Optional ones are None when their feature is off."""

    admin_password: pulumi.Output[str]
    secret_key: pulumi.Output[str]
    init_password: pulumi.Output[str]
    postgres_password: pulumi.Output[str]
    redis_password: pulumi.Output[str]
    sandbox_api_key: pulumi.Output[str]
    plugin_daemon_key: pulumi.Output[str]
    plugin_inner_api_key: pulumi.Output[str]
    vector_store_api_key: pulumi.Output[str]
    agent_server_secret_key: pulumi.Output[str]
    agent_api_token: pulumi.Output[str]
    agent_sandbox_token: pulumi.Output[str]
    gateway_secret: pulumi.Output[str] | None
    mail_password: pulumi.Output[str] | None
    storage_secret_key: pulumi.Output[str] | None
    github_client_secret: pulumi.Output[str] | None
    google_client_secret: pulumi.Output[str] | None


class SecretReader:
    """Reads the secrets among the settings of a stack, and reports to their list of problems."""

    def __init__(self, top: Section, stack: str) -> None:
        self._top = top
        self._problems = top.problems
        self._stack = stack

    def read(self, mail: Mail, storage: Storage, login: Login) -> Secrets:
        """Read those that services get; only to be used when no problem was reported."""
        needed: dict[str, bool] = {
            "gatewaySecret": any(
                self._top.mapping(part).get("enabled") in {True, "true"} for part in ("oauth", "oidcGate")
            ),
            "mailPassword": mail.type in {"resend", "sendgrid"} or bool(mail.username),
            "storageSecretKey": storage.type == "s3",
            "githubClientSecret": bool(login.github_client_id),
            "googleClientSecret": bool(login.google_client_id),
        }
        found = {
            snake(key): self._secret(key, SHAPES[key], required=needed.get(key, True))
            for key in SHAPES
            if key not in TLS_SECRETS | OAUTH_SECRETS | LLM_SECRETS
        }
        return Secrets(**found)  # type: ignore[arg-type]  # a missing required one was reported: load raises

    def text(self, key: str, *, required: bool) -> str:
        """Return the text of a secret that is read here and not handed to a service as it is."""
        shape = SHAPES.get(key)
        value = self._top.text(key) if shape else self._pem(key)
        if not value:
            if required:
                fix = (
                    f"`{shape.command or f'openssl rand -hex 32 | pulumi config set --secret dify:{key}'}`"
                    if shape
                    else f"`pulumi config set --secret dify:{key} < file.pem`, or choose another dify:tls.mode"
                )
                self._problems.add_secret(key, "the secret is not set", fix)
            return ""
        self.check_encrypted(key)
        if shape and (problem := shape.problem(value)):
            self._problems.add_secret(key, problem, shape.fix)
        return value

    def _pem(self, key: str) -> str:
        """Read text of several lines."""
        value = self._top.raw(key)
        return value.strip() + "\n" if isinstance(value, str) and value.strip() else ""

    def check_encrypted(self, key: str) -> None:
        """Report a secret that is stored in plain text."""
        if not pulumi.runtime.config.is_config_secret(f"{NAMESPACE}:{key}"):
            self._problems.add_secret(
                key, "is stored in plain text", f"set it again: `pulumi config set --secret dify:{key}`"
            )

    def _secret(self, key: str, shape: Shape, *, required: bool) -> pulumi.Output[str] | None:
        value = self._top.text(key)
        if value:
            self.check_encrypted(key)
        if not value:
            if required:
                fix = f"run `dify-kit init {self._stack}`" if shape.generate else "set it with `--secret`"
                if shape.command:
                    fix = f"`dify-kit up` makes it, or run `{shape.command}`"
                self._problems.add_secret(key, "the secret is not set", fix)
            return None
        if value in PUBLISHED_DEFAULTS:
            self._problems.add_secret(
                key, "is the value that upstream publishes", "everybody knows it: generate another one"
            )
        elif problem := shape.problem(value):
            self._problems.add_secret(key, problem, shape.fix)
        return pulumi.Output.secret(value)
