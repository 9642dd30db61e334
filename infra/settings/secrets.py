"""What each secret must look like, and how a new one is made."""

import base64
import binascii
import json
import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

AGENT_KEY_BYTES = 32
# Dify's console refuses a longer one.
MAX_INIT_PASSWORD = 30
_LETTERS_AND_DIGITS = string.ascii_letters + string.digits


def password(length: int) -> str:
    """Return a random password with at least one letter and one digit, as Dify's console requires."""
    drawn = "".join(secrets.choice(_LETTERS_AND_DIGITS) for _ in range(length - 2))
    return secrets.choice(string.ascii_letters) + drawn + secrets.choice(string.digits)


def agent_key() -> str:
    """Return 32 random bytes in unpadded base64url, the only form that the agent backend accepts."""
    return base64.urlsafe_b64encode(secrets.token_bytes(AGENT_KEY_BYTES)).decode().rstrip("=")


def signing_keys() -> str:
    """Return the gateway's document of signing keys with one new key."""
    from dify_gateway import keys  # noqa: PLC0415  # it imports a library that most commands do not need

    return json.dumps(keys.new_document())


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Bounds on a secret's length, further rules, and the generator (None: the operator provides it).

    `command` makes one for a stack that has none, where `dify-kit init` does not.
    """

    low: int
    high: int = 512
    rule: Callable[[str], str | None] | None = None
    generate: Callable[[], str] | None = None
    command: str = ""

    @property
    def fix(self) -> str:
        """What to do about a secret of another shape."""
        if self.command and self.generate:
            return f"make new ones: `{self.command}`"
        return f"use {self.low} to {self.high} characters" + (
            "" if self.rule is None else ", or let `dify-kit init` make it"
        )

    def problem(self, value: str) -> str | None:
        """Return what is wrong, without the value, or None."""
        if not self.low <= len(value) <= self.high:
            return f"has {len(value)} characters"
        if not value.isascii() or not value.isprintable():
            return "contains characters outside printable ASCII"
        return self.rule(value) if self.rule else None


def _agent_key_problem(value: str) -> str | None:
    if "=" in value:
        return "is padded: the agent backend requires base64url without '='"
    if not set(value) <= set(_LETTERS_AND_DIGITS + "-_"):
        return "is not base64url (letters, digits, '-' and '_')"
    try:
        size = len(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))
    except (binascii.Error, ValueError):
        return "is not base64url"
    return None if size == AGENT_KEY_BYTES else f"holds {size} bytes instead of {AGENT_KEY_BYTES}"


def _signing_keys_problem(value: str) -> str | None:
    from dify_gateway import keys  # noqa: PLC0415

    try:
        keys.read_document(json.loads(value))
    except keys.KeyDocumentError as problem:
        return f"is not a document of signing keys: {problem}"
    except (ValueError, RecursionError):
        return "is not a document of signing keys: it is not JSON"
    return None


def _console_password_problem(value: str) -> str | None:
    if any(character.isalpha() for character in value) and any(character.isdigit() for character in value):
        return None
    return "needs a letter and a digit, else Dify's console rejects it"


# Variables of Dify's services that carry a secret, and the setting that each comes from. One place for each
# secret: `dify:extraEnv` may not set them a second time.
SECRET_VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        "SECRET_KEY": "secretKey",
        "INIT_PASSWORD": "initPassword",
        "DB_PASSWORD": "postgresPassword",
        "PGVECTOR_PASSWORD": "postgresPassword",
        "REDIS_PASSWORD": "redisPassword",
        "CELERY_BROKER_URL": "redisPassword",
        "DIFY_AGENT_REDIS_URL": "redisPassword",
        "CODE_EXECUTION_API_KEY": "sandboxApiKey",
        "API_KEY": "sandboxApiKey",
        "PLUGIN_DAEMON_KEY": "pluginDaemonKey",
        "SERVER_KEY": "pluginDaemonKey",
        "DIFY_AGENT_PLUGIN_DAEMON_API_KEY": "pluginDaemonKey",
        "INNER_API_KEY_FOR_PLUGIN": "pluginInnerApiKey",
        "DIFY_INNER_API_KEY": "pluginInnerApiKey",
        "DIFY_AGENT_INNER_API_KEY": "pluginInnerApiKey",
        "WEAVIATE_API_KEY": "vectorStoreApiKey",
        "AUTHENTICATION_APIKEY_ALLOWED_KEYS": "vectorStoreApiKey",
        "QDRANT_API_KEY": "vectorStoreApiKey",
        "QDRANT__SERVICE__API_KEY": "vectorStoreApiKey",
        "DIFY_AGENT_SERVER_SECRET_KEY": "agentServerSecretKey",
        "DIFY_AGENT_API_TOKEN": "agentApiToken",
        "AGENT_BACKEND_API_TOKEN": "agentApiToken",
        "DIFY_AGENT_LOCAL_SANDBOX_AUTH_TOKEN": "agentSandboxToken",
        "SHELLCTL_AUTH_TOKEN": "agentSandboxToken",
        "SMTP_PASSWORD": "mailPassword",
        "RESEND_API_KEY": "mailPassword",
        "SENDGRID_API_KEY": "mailPassword",
        "S3_SECRET_KEY": "storageSecretKey",
        "AWS_SECRET_KEY": "storageSecretKey",
        "GITHUB_CLIENT_SECRET": "githubClientSecret",
        "GOOGLE_CLIENT_SECRET": "googleClientSecret",
    }
)

# Read with dify:tls, dify:oauth, dify:oidcGate and dify:llm, and passed to no service as they are.
TLS_SECRETS = frozenset({"tlsSeed", "tlsCertificate", "tlsKey"})
OAUTH_SECRETS = frozenset({"oauthSigningKeys", "oidcGateClientSecret"})
LLM_SECRETS = frozenset({"litellmMasterKey"})

SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "adminPassword": Shape(low=8, high=64, rule=_console_password_problem, generate=lambda: password(24)),
        "secretKey": Shape(low=32, generate=lambda: secrets.token_urlsafe(42)),
        "initPassword": Shape(low=8, high=MAX_INIT_PASSWORD, generate=lambda: password(24)),
        "postgresPassword": Shape(low=12, generate=lambda: password(32)),
        "redisPassword": Shape(low=12, generate=lambda: password(32)),
        "sandboxApiKey": Shape(low=16, generate=lambda: secrets.token_urlsafe(32)),
        "pluginDaemonKey": Shape(low=16, generate=lambda: secrets.token_urlsafe(42)),
        "pluginInnerApiKey": Shape(low=16, generate=lambda: secrets.token_urlsafe(42)),
        "vectorStoreApiKey": Shape(low=16, generate=lambda: secrets.token_urlsafe(32)),
        "agentServerSecretKey": Shape(low=43, high=44, rule=_agent_key_problem, generate=agent_key),
        "agentApiToken": Shape(low=16, generate=lambda: secrets.token_urlsafe(32)),
        "agentSandboxToken": Shape(low=16, generate=lambda: secrets.token_urlsafe(32)),
        "tlsSeed": Shape(low=32, generate=lambda: secrets.token_hex(32)),
        "oauthSigningKeys": Shape(
            low=100,
            high=65536,
            rule=_signing_keys_problem,
            generate=signing_keys,
            command="dify-kit keys rotate signing",
        ),
        "gatewaySecret": Shape(
            low=32,
            generate=lambda: secrets.token_hex(32),
            command="openssl rand -hex 32 | pulumi config set --secret dify:gatewaySecret",
        ),
        "oidcGateClientSecret": Shape(low=8, command="pulumi config set --secret dify:oidcGateClientSecret"),
        "litellmMasterKey": Shape(low=32, generate=lambda: f"sk-{secrets.token_urlsafe(32)}"),
        "mailPassword": Shape(low=1),
        "storageSecretKey": Shape(low=8),
        "githubClientSecret": Shape(low=8),
        "googleClientSecret": Shape(low=8),
    }
)
