"""What is tested: an address, a key, and, for a stack of our own, what it says about itself."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx


class TargetError(Exception):
    """There is nothing to test. The message says why, and what to do."""


class Secret:
    """A value that shows itself to nobody: not in a traceback, not in a report."""

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value itself."""
        return self._value

    def __repr__(self) -> str:
        """Return the beginning and the length, enough to tell two keys apart."""
        return f"<secret {self._value[:4]}... of {len(self._value)} characters>"

    __str__ = __repr__


class BearerKey(httpx.Auth):
    """Sends a key as `Authorization: Bearer`; its repr, and so every report, hides it."""

    def __init__(self, key: Secret, scheme: str = "Bearer") -> None:
        self._key = key
        self._scheme = scheme

    def auth_flow(self, request: httpx.Request) -> Any:  # noqa: ANN401  # httpx's own generator type
        """Add the header."""
        request.headers["Authorization"] = f"{self._scheme} {self._key.reveal()}"
        yield request

    def __repr__(self) -> str:
        """Return the scheme and the hidden key."""
        return f"{self._scheme} {self._key!r}"


@dataclass(frozen=True, kw_only=True)
class Target:
    """An environment to test. `exports` is empty when only its address is known."""

    url: str
    key: Secret
    cors: Mapping[str, tuple[str, ...]]
    max_upload_megabytes: int | None = None
    exports: Mapping[str, Any] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """The origin of the address."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    def allowed(self, group: str) -> tuple[str, ...]:
        """Return the origins that may call a route group."""
        return tuple(self.cors.get(group, ()))


def from_address(url: str, key: str, allowed_origins: tuple[str, ...]) -> Target:
    """Return the target behind an address. Raises TargetError for an address or key that cannot be one."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise TargetError(f"--url {url!r} is no address; use https://dify.example.com")
    if not key:
        raise TargetError(
            "no API key; put it into DIFY_API_KEY or a file named by --api-key-file (an argument is in the process list)"
        )
    return Target(url=url.rstrip("/"), key=Secret(key), cors={"v1": allowed_origins})


def from_stack(stack: str) -> Target:
    """Return the target of a deployed stack, from its exports alone. Raises TargetError when there is none."""
    from dify_kit.errors import KitError  # noqa: PLC0415  # not needed for --url
    from dify_kit.pulumi_cli import Pulumi  # noqa: PLC0415
    from dify_kit.stack_files import StackFiles  # noqa: PLC0415

    try:
        files = StackFiles.open(stack)
        if not files.configured():
            raise TargetError(f"stack {stack} does not exist here; deploy it with `make up STACK={stack}`")
        told = Pulumi(files=files).run("stack", "output", "--json", "--show-secrets", check=False)
    except KitError as problem:
        raise TargetError(f"stack {stack} cannot be read: {problem}") from None
    try:
        exports = json.loads(told.stdout)
    except ValueError:
        exports = {}
    if not exports.get("publicUrl"):
        raise TargetError(f"stack {stack} is not deployed; deploy it with `make up STACK={stack}`")
    key = exports.pop("canaryKey", None)
    if not key:
        raise TargetError(f"stack {stack} has no canary app; set dify:canary to true and run `make up`")
    exports.pop("appKeys", None)
    return Target(
        url=exports["publicUrl"],
        key=Secret(key),
        cors={group: tuple(origins) for group, origins in exports["corsOrigins"].items()},
        max_upload_megabytes=int(exports["maxUploadMegabytes"]),
        exports=exports,
    )


def read_key(argument: str | None, file: str | None) -> str:
    """Return the API key from a file, an argument or the environment, in this order."""
    if file:
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except OSError as problem:
            raise TargetError(f"--api-key-file {file}: {problem.strerror}") from None
    return argument or os.environ.get("DIFY_API_KEY", "")
