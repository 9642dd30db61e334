"""What a stack sets: its settings with their JSON types, before defaults are added and anything is checked.

Pulumi's configuration stores text, or an object in the stack's file; `pulumi config set llm '{...}'` stores an object
as JSON text. Both come out the same here.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from infra.catalogue.project import declared
from infra.settings.reader import Problems, Section
from infra.settings.secrets import SHAPES

NAMESPACE = "dify"
# Settings that Pulumi.yaml declares without a shape, and that are stored encrypted.
_ENCRYPTED = frozenset({"tlsCertificate", "tlsKey", "llmKeys", "modelCredentials"})
SECRET_KEYS = frozenset(SHAPES) | _ENCRYPTED


class Sealed:
    """An encrypted value that has not been decrypted: it is set, and its text is unknown."""

    def __repr__(self) -> str:
        """Return what an error message may show."""
        return "<encrypted>"

    def __deepcopy__(self, _memo: object) -> "Sealed":
        """Return this one value: readers compare by identity, also after a copy of settings was changed."""
        return self


SEALED: Final = Sealed()


@dataclass(frozen=True, kw_only=True)
class Given:
    """`values` by key without namespace, JSON types; `encrypted` are the keys whose values are stored encrypted.

    Only the value of a secret (SECRET_KEYS, and keys that no setting has) may be SEALED.
    """

    values: Mapping[str, Any]
    encrypted: frozenset[str]

    @classmethod
    def of(cls, stored: Mapping[str, object], encrypted: Iterable[str] = ()) -> "Given":
        """Parse what is stored under each key, as text or as an object."""
        return cls(
            values={key: parsed(key, value) for key, value in stored.items()}, encrypted=frozenset(encrypted)
        )

    def top(self, problems: Problems) -> Section:
        """Return a reader of these settings, with the defaults of Pulumi.yaml; it hides secrets in `problems`."""
        problems.hidden = SECRET_KEYS | self.encrypted
        defaults = {key: entry.get("default") for key, entry in declared().items()}
        return Section(problems, self.values, defaults)


def parsed(key: str, stored: object) -> object:
    """Return the value of a setting from the text or the object that is stored for it."""
    if isinstance(stored, Sealed) or _holds_sealed(stored):
        return stored
    # Pulumi hands every value to the program as text.
    text = stored if isinstance(stored, str) else json.dumps(stored, default=str)
    if declared().get(key, {}).get("type", "string") not in {"array", "object", "boolean", "integer"}:
        return text
    try:
        return json.loads(text)
    except ValueError:
        # The reader of this key reports what it takes.
        return text


def _holds_sealed(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_sealed(one) for one in value.values())
    if isinstance(value, list):
        return any(_holds_sealed(one) for one in value)
    return isinstance(value, Sealed)
