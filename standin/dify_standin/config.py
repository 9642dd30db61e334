"""The environment, checked as Dify checks it: a missing or malformed variable ends the start with its name."""

import base64
import binascii
import os
import sys
from dataclasses import dataclass
from typing import NoReturn

AGENT_KEY_BYTES = 32
START_SECONDS = 0.5

# Variables without which a service cannot work, so that it refuses to start.
REQUIRED: dict[str, tuple[str, ...]] = {
    "api": (
        "SECRET_KEY",
        "DB_HOST",
        "DB_PASSWORD",
        "DB_DATABASE",
        "REDIS_HOST",
        "REDIS_PASSWORD",
        "CELERY_BROKER_URL",
        "STORAGE_TYPE",
        "PLUGIN_DAEMON_URL",
        "PLUGIN_DAEMON_KEY",
        "INNER_API_KEY_FOR_PLUGIN",
        "CODE_EXECUTION_ENDPOINT",
        "CODE_EXECUTION_API_KEY",
        "VECTOR_STORE",
    ),
    "web": ("CONSOLE_API_URL", "APP_API_URL"),
    "sandbox": ("API_KEY",),
    "plugin-daemon": (
        "SERVER_KEY",
        "DIFY_INNER_API_URL",
        "DIFY_INNER_API_KEY",
        "DB_HOST",
        "DB_PASSWORD",
        "DB_DATABASE",
        "REDIS_HOST",
        "REDIS_PASSWORD",
        "PLUGIN_WORKING_PATH",
        "PLUGIN_REMOTE_INSTALLING_HOST",
        "PLUGIN_REMOTE_INSTALLING_PORT",
    ),
    "agent-backend": (
        "DIFY_AGENT_REDIS_URL",
        "DIFY_AGENT_PLUGIN_DAEMON_URL",
        "DIFY_AGENT_PLUGIN_DAEMON_API_KEY",
        "DIFY_AGENT_INNER_API_URL",
        "DIFY_AGENT_INNER_API_KEY",
        "DIFY_AGENT_LOCAL_SANDBOX_ENDPOINT",
        "DIFY_AGENT_SERVER_SECRET_KEY",
        "DIFY_AGENT_API_TOKEN",
    ),
    "local-sandbox": ("SHELLCTL_AUTH_TOKEN",),
}


def refuse(message: str) -> NoReturn:
    """End the start, as the real service would, with the reason on stderr."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def text(name: str, default: str = "") -> str:
    """Return a variable, empty when it is not set."""
    return os.environ.get(name, default)


def integer(name: str, default: int) -> int:
    """Return a numeric variable; `check` has made sure that it is one."""
    return int(os.environ.get(name) or default)


def flag(name: str, *, default: bool = False) -> bool:
    """Return a boolean variable."""
    return os.environ.get(name, str(default)).lower() in {"true", "1", "yes"}


def start_seconds() -> float:
    """Return how long api takes to be ready once it listens: Dify's import takes 13 s and more, the stand-in's none."""
    return float(os.environ.get("DIFY_STANDIN_START_SECONDS") or START_SECONDS)


def release() -> str:
    """Return the Dify release this container stands in for."""
    return text("DIFY_STANDIN_RELEASE", "1.17.1")


def check(role: str) -> None:
    """Refuse to start when a variable that the real service needs is missing, or one has a value that it refuses."""
    # Facts and refusals read the release and the environment by this module.
    from dify_standin import facts, refusals  # noqa: PLC0415

    needed = dict.fromkeys([*REQUIRED[role], *facts.required(role)])
    missing = [name for name in needed if not os.environ.get(name)]
    if missing:
        refuse(f"{role}: {', '.join(missing)}: Field required")
    if refused := facts.problems(role, os.environ):
        refuse(f"{role}: {refusals.text(role, refused)}")
    if role == "api":
        _check_storage()
    if role == "agent-backend":
        _check_agent_key(os.environ["DIFY_AGENT_SERVER_SECRET_KEY"])


def _check_storage() -> None:
    kind = text("STORAGE_TYPE")
    if kind == "opendal" and text("OPENDAL_SCHEME", "fs") == "fs" and not text("OPENDAL_FS_ROOT"):
        refuse("api: ConfigInvalid (permanent): root is not specified (OPENDAL_FS_ROOT)")
    if kind not in {"opendal", "s3"}:
        refuse(f"api: STORAGE_TYPE: unsupported storage type {kind!r}")


def _check_agent_key(key: str) -> None:
    try:
        raw = base64.b64decode(key + "=" * (-len(key) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if "=" in key or len(raw) != AGENT_KEY_BYTES:
        refuse("agent-backend: DIFY_AGENT_SERVER_SECRET_KEY must be unpadded base64url of exactly 32 bytes")


@dataclass(frozen=True)
class Cookies:
    """How the console's cookies are named: `__Host-` and Secure when both console URLs are https."""

    secure: bool
    domain: str

    @classmethod
    def from_environment(cls) -> "Cookies":
        """Read the console's URLs and the cookie domain."""
        https = text("CONSOLE_WEB_URL").startswith("https") and text("CONSOLE_API_URL").startswith("https")
        return cls(secure=https, domain=text("COOKIE_DOMAIN"))

    def name(self, base: str) -> str:
        """Return the full name of a cookie."""
        return f"__Host-{base}" if self.secure and not self.domain else base
