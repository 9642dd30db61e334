"""What each secret must look like, and how a new one is made."""

import base64
import binascii
import json
import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from infra import hints
from infra.catalogue import checks
from infra.settings import proxy_keys

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

    `command` are the words of the `dify-kit` command that makes or takes one, where `dify-kit init` does not.
    """

    low: int
    high: int = 512
    rule: Callable[[str], str | None] | None = None
    generate: Callable[[], str] | None = None
    command: tuple[str, ...] = ()

    def fix(self, key: str, stack: str) -> str:
        """Return what to do about a secret of another shape."""
        if self.command and self.generate:
            return f"make new ones: `{hints.kit(*self.command, stack=stack)}`"
        made = " --generate makes one" if self.generate else " prompts for another"
        asked = ["--generate"] if self.generate else []
        return f"use {self.low} to {self.high} characters; `{hints.assign(key, *asked, stack=stack)}`{made}"

    def problem(self, value: str) -> str | None:
        """Return what is wrong, without the value, or None."""
        if not self.low <= len(value) <= self.high:
            return f"has {checks.length(value)}"
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


def _proxy_key_problem(value: str) -> str | None:
    return None if all(map(proxy_keys.FORM.fullmatch, value.split(" "))) else "is not a key of the LLM proxy"


def _console_password_problem(value: str) -> str | None:
    if any(character.isalpha() for character in value) and any(character.isdigit() for character in value):
        return None
    return "needs a letter and a digit, else Dify's console rejects it"


def _login_problem(value: str) -> str | None:
    user, colon, _ = value.partition(":")
    return None if user and colon else "is not user:password"


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
        **dict.fromkeys(("MILVUS_PASSWORD", "MILVUS_TOKEN", "OPENSEARCH_PASSWORD"), "externalVectorPassword"),
        **dict.fromkeys(("ELASTICSEARCH_PASSWORD", "ELASTICSEARCH_API_KEY"), "externalVectorPassword"),
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

# Variables of Dify's services whose values come from settings that are no secrets, and those settings. A second value
# would not fit what the stack runs: its services, networks and volumes follow the setting.
OWNED_VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            ("DB_TYPE", "DB_EXTRAS", "DB_SSL_MODE", "PGSSLMODE", "PGSSLROOTCERT"), "database.tls"
        ),
        "DB_HOST": "database.host",
        "DB_PORT": "database.port",
        "DB_USERNAME": "database.user",
        "DB_DATABASE": "database.database",
        "REDIS_HOST": "redis.host",
        "EVENT_BUS_REDIS_URL": "redis.host",
        "REDIS_PORT": "redis.port",
        "REDIS_USERNAME": "redis.user",
        "REDIS_DB": "redis.database",
        **dict.fromkeys(("REDIS_USE_SSL", "REDIS_SSL_CERT_REQS", "BROKER_USE_SSL"), "redis.tls"),
        "REDIS_SSL_CA_CERTS": "redis.caFile",
        "VECTOR_STORE": "vectorStore",
        **dict.fromkeys(("WEAVIATE_ENDPOINT", "QDRANT_URL", "PGVECTOR_HOST"), "vectorServer.host"),
        "WEAVIATE_GRPC_ENDPOINT": "vectorServer.grpcHost",
        "PGVECTOR_PORT": "vectorServer.port",
        "PGVECTOR_USER": "vectorServer.user",
        "PGVECTOR_DATABASE": "vectorServer.database",
        **dict.fromkeys(
            ("MILVUS_URI", "OPENSEARCH_HOST", "ELASTICSEARCH_HOST", "ELASTICSEARCH_CLOUD_URL"),
            "vectorServer.host",
        ),
        **dict.fromkeys(("OPENSEARCH_PORT", "ELASTICSEARCH_PORT"), "vectorServer.port"),
        **dict.fromkeys(("MILVUS_USER", "OPENSEARCH_USER", "ELASTICSEARCH_USERNAME"), "vectorServer.user"),
        "MILVUS_DATABASE": "vectorServer.database",
        **dict.fromkeys(
            (
                "MILVUS_SECURE",
                "MILVUS_SERVER_NAME",
                "MILVUS_SERVER_PEM_PATH",
                "OPENSEARCH_SECURE",
                "OPENSEARCH_VERIFY_CERTS",
                "ELASTICSEARCH_CA_CERTS",
                "ELASTICSEARCH_USE_CLOUD",
                "ELASTICSEARCH_VERIFY_CERTS",
            ),
            "vectorServer.tls",
        ),
        **dict.fromkeys(("STORAGE_TYPE", "PLUGIN_STORAGE_TYPE"), "storage.type"),
        **dict.fromkeys(("S3_BUCKET_NAME", "PLUGIN_STORAGE_OSS_BUCKET"), "storage.bucket"),
        "S3_ENDPOINT": "storage.endpoint",
    }
)
# Variables of several Redis servers. The stack's proxy passes connections to one.
SEVERAL_REDIS = frozenset(
    {
        "REDIS_USE_SENTINEL",
        "REDIS_SENTINELS",
        "REDIS_USE_CLUSTERS",
        "REDIS_CLUSTERS",
        "CELERY_USE_SENTINEL",
        "EVENT_BUS_REDIS_USE_CLUSTERS",
    }
)

# Read with dify:tls, dify:oauth, dify:oidcGate, dify:llm, dify:outbound and the settings of external servers, and
# passed to no service as they are.
TLS_SECRETS = frozenset({"tlsSeed", "tlsCertificate", "tlsKey"})
# Secrets that are kept in files, by the names that certbot gives them.
PEM_FILES: Mapping[str, str] = MappingProxyType({"tlsCertificate": "fullchain.pem", "tlsKey": "privkey.pem"})
OAUTH_SECRETS = frozenset({"oauthSigningKeys", "oidcGateClientSecret"})
OUTBOUND_SECRETS = frozenset({"outboundCredentials"})
# Passwords of external servers, read with dify:database, dify:redis and dify:vectorServer.
DATA_SECRETS = frozenset({"externalDatabasePassword", "externalRedisPassword", "externalVectorPassword"})
LLM_SECRETS = frozenset({"litellmMasterKey", "llmDifyKey"})

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
            command=("keys", "rotate", "signing"),
        ),
        "gatewaySecret": Shape(
            low=32,
            generate=lambda: secrets.token_hex(32),
        ),
        "oidcGateClientSecret": Shape(low=8),
        "litellmMasterKey": Shape(low=32, generate=lambda: f"sk-{secrets.token_urlsafe(32)}"),
        "outboundCredentials": Shape(low=3, rule=_login_problem),
        # Two of them, the new one first, while they are changed.
        "llmDifyKey": Shape(
            low=proxy_keys.LENGTH,
            high=2 * proxy_keys.LENGTH + 1,
            rule=_proxy_key_problem,
            generate=proxy_keys.new_secret,
            command=("keys", "rotate", "dify"),
        ),
        "externalDatabasePassword": Shape(low=8),
        "externalRedisPassword": Shape(low=8),
        "externalVectorPassword": Shape(low=8),
        "mailPassword": Shape(low=1),
        "storageSecretKey": Shape(low=8),
        "githubClientSecret": Shape(low=8),
        "googleClientSecret": Shape(low=8),
    }
)
