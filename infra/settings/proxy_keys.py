"""Keys that the kit issues to callers of the LLM proxy. Only hashes are kept, in a file next to the stack's settings.

::

    <directory of the real Pulumi.<stack>.yaml>/proxy-keys.<stack>.json   0600

`dify-kit keys` writes it, the program reads it.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PREFIX = "dkp_"
# 256 bits in base64url, without padding.
RANDOM_BYTES, RANDOM_CHARACTERS = 32, 43
LENGTH = len(PREFIX) + RANDOM_CHARACTERS
FORM = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{{RANDOM_CHARACTERS}}}")
SHOWN_CHARACTERS = len(PREFIX) + 6
VERSION = 1
# The secret setting with the key by which Dify calls the proxy, and the caller's name.
DIFY_KEY, DIFY = "llmDifyKey", "dify"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
_HASH = re.compile(r"[0-9a-f]{64}")


class ProxyKeyError(Exception):
    """The file of the keys cannot be used. The message names file, key and fix."""


@dataclass(frozen=True, kw_only=True)
class ProxyKey:
    """A key by its hash (SHA-256 in hex) and its first characters. Times are ISO 8601 in UTC, empty for never.

    `budget` is in US dollars a month; None takes what the stack's settings say, as with `requests_per_minute` and
    `concurrent`; 0 means none. Without `models` every served model may be used. `internal`: only on the listener
    inside the stack's network.
    """

    name: str
    prefix: str
    sha256: str
    created: str
    expires: str = ""
    revoked: str = ""
    budget: float | None = None
    requests_per_minute: int | None = None
    concurrent: int | None = None
    models: tuple[str, ...] = ()
    internal: bool = False

    @property
    def expiry(self) -> int:
        """Seconds of the epoch after which it is refused; 0 for never."""
        return int(datetime.fromisoformat(self.expires).timestamp()) if self.expires else 0

    def valid_at(self, moment: datetime) -> bool:
        """Whether it is neither revoked nor expired."""
        return not self.revoked and (not self.expires or datetime.fromisoformat(self.expires) > moment)


def issue(name: str, now: datetime, **options: Any) -> tuple[str, ProxyKey]:  # noqa: ANN401  # ProxyKey's own fields
    """Return a new secret, to be shown once, and what is kept of it."""
    secret = new_secret()
    return secret, _kept(name, secret, created=timestamp(now), **options)


def new_secret() -> str:
    """Return a new key."""
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def of_dify(text: str) -> tuple[ProxyKey, ...]:
    """Return what is kept of Dify's own keys: one, or during a rotation the new one and the old one.

    They open the listener inside the stack's network only. Dify's apps have limits of their own, so the keys have none.
    """
    return tuple(
        _kept(DIFY, secret, created="", internal=True, requests_per_minute=0, concurrent=0)
        for secret in text.split()
    )


def timestamp(moment: datetime) -> str:
    """Spell a moment as the file has it."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def revoked(keys: Sequence[ProxyKey], name: str, now: datetime) -> tuple[ProxyKey, ...]:
    """Return the keys with those of `name` revoked. They stay in the file, for the record."""
    return tuple(
        replace(key, revoked=timestamp(now)) if key.name == name and not key.revoked else key for key in keys
    )


def fit(
    key: ProxyKey, served: Collection[str], priced: Collection[str], budget: float
) -> tuple[ProxyKey | None, list[str]]:
    """Return the key as it can be used with a stack's models and prices, and what is to be reported about it.

    A model without a price would not count for a budget, so a key with one cannot use it. None for a key that could
    use no model. `budget` is that of keys without one of their own.
    """
    warnings = [
        f"proxy key {key.name}: {model} is not served: requests for it fail; add it to dify:llm.models, or issue a new "
        "key"
        for model in key.models
        if model not in served
    ]
    own = budget if key.budget is None else key.budget
    uncounted = [model for model in key.models or served if own and model in served and model not in priced]
    if not uncounted:
        return key, warnings
    warnings += [
        f"proxy key {key.name}: {model} has no price, and the key has a budget: requests for it fail; set "
        f"dify:llm.prices.{model} to {{input: ..., output: ...}}, dollars a million tokens"
        for model in uncounted
    ]
    left = tuple(model for model in key.models or served if model not in uncounted)
    return (replace(key, models=left) if left else None), warnings


def file_of(settings_file: Path, stack: str) -> Path:
    """Return the file with the keys of a stack, by its settings file or a link to it."""
    return settings_file.resolve().with_name(f"proxy-keys.{stack}.json")


def read(path: Path) -> tuple[ProxyKey, ...]:
    """Return the keys of a file; none when there is no file. Raises ProxyKeyError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as problem:
        raise ProxyKeyError(
            f"{path} cannot be read ({problem}); restore it from your backup, or delete it"
        ) from None
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise ProxyKeyError(
            f"{path} was written by another version of the kit; use that version, or delete the file"
        )
    keys = tuple(_key(entry, path) for entry in document.get("keys", ()))
    live = [key.name for key in keys if not key.revoked]
    if double := sorted({name for name in live if live.count(name) > 1}):
        raise ProxyKeyError(
            f"{path}: two keys that are not revoked are named {double[0]}; delete one of them"
        )
    return keys


def text_of(keys: Sequence[ProxyKey]) -> str:
    """Return the text of a file with these keys."""
    return json.dumps({"version": VERSION, "keys": [asdict(key) for key in keys]}, indent=2) + "\n"


def _kept(name: str, secret: str, **options: Any) -> ProxyKey:  # noqa: ANN401  # ProxyKey's own fields
    return ProxyKey(
        name=name,
        prefix=secret[:SHOWN_CHARACTERS],
        sha256=hashlib.sha256(secret.encode()).hexdigest(),
        **options,
    )


def _key(entry: Any, path: Path) -> ProxyKey:  # noqa: ANN401  # any JSON
    try:
        key = ProxyKey(**{**entry, "models": tuple(entry.get("models") or ())})
        times = [datetime.fromisoformat(one) for one in (key.created, key.expires, key.revoked) if one]
        sound = NAME.fullmatch(key.name) and _HASH.fullmatch(key.sha256) and all(one.tzinfo for one in times)
    except (TypeError, ValueError, AttributeError):
        sound = None
    if not sound:
        raise ProxyKeyError(f"{path} has a damaged entry; restore the file, or delete the entry")
    return key
