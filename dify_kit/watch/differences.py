"""The differences of two stacks, from their settings alone: neither has to be deployed."""

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dify_kit.images.wanted import source_of, wanted
from dify_kit.stack import clients, settings
from dify_kit.workspace.files import StackFiles
from infra.catalogue.checks import names_secret
from infra.catalogue.project import declared
from infra.masking import SHAPES, Redactor
from infra.platforms.image_needs import parts_of
from infra.settings.given import SEALED, SECRET_KEYS, parsed

# Objects whose keys are names that the operator chooses: what is given takes the place of the whole default.
REPLACED = frozenset({("llm", "upstreams"), ("llm", "models")})
DIGITS = 8
# Of a secret that is set, and cannot be decrypted here.
UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Value:
    """A value of a setting; `default` when the stack does not set it."""

    value: Any
    default: bool


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What differs: its name, and what each stack has; None for nothing."""

    name: str
    a: Any
    b: Any


@dataclass(frozen=True, kw_only=True)
class Described:
    """A stack as it is compared. `settings` by flat key, `secrets` by fingerprint, `images` by role."""

    stack: str
    release: str
    settings: Mapping[str, Value]
    secrets: Mapping[str, str]
    images: Mapping[str, str]
    clients: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Differences:
    """Everything in which two stacks differ; empty lists where they do not."""

    a: str
    b: str
    release: list[Pair] = field(default_factory=list)
    settings: list[Pair] = field(default_factory=list)
    images: list[Pair] = field(default_factory=list)
    secrets: list[Pair] = field(default_factory=list)
    clients: list[Pair] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether there are none."""
        return not any(self.parts().values())

    def parts(self) -> dict[str, list[Pair]]:
        """Return the differences by what they are about."""
        return {
            "release": self.release,
            "settings": self.settings,
            "images": self.images,
            "secrets": self.secrets,
            "clients": self.clients,
        }


def compare(one: StackFiles, other: StackFiles) -> Differences:
    """Compare two stacks. Raises KitError for settings that cannot be read.

    Secrets are compared by fingerprints under a key of this comparison alone: they say equal or different, and nothing
    to anyone who keeps them.
    """
    key = secrets.token_bytes(32)
    a, b = describe(one, key), describe(other, key)
    return Differences(
        a=a.stack,
        b=b.stack,
        release=_pairs({"release": a.release}, {"release": b.release}),
        settings=[
            pair
            for pair in _pairs(a.settings, b.settings)
            if pair.name != "release" and _value(pair.a) != _value(pair.b)
        ],
        images=_pairs(a.images, b.images),
        # What is unknown is not known to be equal, unless both are one stack.
        secrets=_pairs(a.secrets, b.secrets, always=UNKNOWN if a.stack != b.stack else ""),
        clients=_pairs(dict.fromkeys(a.clients, True), dict.fromkeys(b.clients, True)),
    )


def _value(one: Value | None) -> Any:  # noqa: ANN401  # JSON
    return one.value if one else None


def _pairs(a: Mapping[str, Any], b: Mapping[str, Any], *, always: str = "") -> list[Pair]:
    return [
        Pair(name=name, a=a.get(name), b=b.get(name))
        for name in sorted({*a, *b})
        if a.get(name) != b.get(name) or (always and a.get(name) == always)
    ]


def describe(files: StackFiles, key: bytes) -> Described:
    """Return a stack with fingerprints under `key`. Raises KitError for settings that cannot be read."""
    given = settings.given(files, decrypt=True)
    reading = settings.read(files)
    hidden = SECRET_KEYS | given.encrypted
    plain: dict[str, Value] = {}
    secret: dict[str, str] = {}
    for name, entry in declared().items():
        value, default = given.values.get(name), parsed(name, entry.get("default"))
        if name in hidden:
            if value is not None:
                secret.update(_fingerprints(key, name, _opened(value)))
            continue
        for path, found in _flat((name,), value, default):
            if names_secret(path[-1]) and found.value and isinstance(found.value, str):
                secret[_joined(path)] = _fingerprint(key, found.value)
            else:
                plain[_joined(path)] = found
    read = reading.settings
    images = {
        role: one.reference
        for one in wanted(parts_of(read), read.dify, source_of(read))
        for role in one.roles
    }
    section = settings.section(files, "oauth")
    named = clients.load(files).entries if section.raw("enabled") else {}
    return Described(
        stack=files.stack,
        release=read.release,
        settings=plain,
        secrets=secret,
        images=images,
        clients=frozenset(named),
    )


def _flat(path: tuple[str, ...], given: Any, default: Any) -> Iterator[tuple[tuple[str, ...], Value]]:  # noqa: ANN401  # JSON
    """Yield the values of a setting by path, as the program reads them: with defaults for parts that are not given."""
    whole = given if given is not None else default
    if not isinstance(whole, Mapping):
        yield path, Value(value=whole, default=given is None)
        return
    defaults = default if isinstance(default, Mapping) else {}
    if given is None:
        parts = {str(key): (None, one) for key, one in defaults.items()}
    elif path in REPLACED:
        parts = {str(key): (one, None) for key, one in whole.items()}
    else:
        parts = {str(key): (whole.get(key), defaults.get(key)) for key in {**defaults, **whole}}
    for key, (own, other) in parts.items():
        yield from _flat((*path, key), own, other)
    if not parts:
        yield path, Value(value={}, default=given is None)


def _joined(path: tuple[str, ...]) -> str:
    return ".".join(path)


def _opened(value: Any) -> Any:  # noqa: ANN401  # JSON
    """Return an object that is stored as one encrypted text as an object, so that its parts are compared."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _fingerprints(key: bytes, name: str, value: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401  # JSON
    if isinstance(value, Mapping) and name != "oauthSigningKeys":
        for part, one in value.items():
            yield from _fingerprints(key, f"{name}.{part}", one)
    else:
        yield name, _fingerprint(key, value)


def _fingerprint(key: bytes, value: Any) -> str:  # noqa: ANN401  # JSON
    if value is SEALED:
        return UNKNOWN
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:DIGITS]


_SHOWN = Redactor(SHAPES)


def shown(value: Any) -> str:  # noqa: ANN401  # what a Pair has
    """Return what a stack has, in a line; what has the form of a secret is masked."""
    if value is None:
        return "-"
    if isinstance(value, Value):
        text = value.value if isinstance(value.value, str) else json.dumps(value.value, default=str)
        return _SHOWN(text or '""') + (" (default)" if value.default else "")
    return "yes" if value is True else str(value)
