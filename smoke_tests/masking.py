"""Keeps secrets out of everything that a test run prints: tracebacks, captured logs, JUnit and HTML reports."""

import base64
from collections.abc import Iterable
from urllib.parse import quote

MASK = "[masked]"
# Anything shorter is a flag or a name, and masking it would break up words.
SHORTEST = 8


class Secret:
    """A secret that only `reveal` returns: `repr`, `str` and formatting give a mask."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself, for the request that needs it."""
        return self._value

    def __repr__(self) -> str:
        """Return the mask."""
        return MASK

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        """Return the mask."""
        return MASK


class Redactor:
    """Replaces every known secret in a text by a mask."""

    def __init__(self) -> None:
        self._spellings: set[str] = set()

    def __repr__(self) -> str:
        """Return the number of known spellings, not the spellings."""
        return f"<Redactor of {len(self._spellings)} spellings>"

    def learn(self, secrets: Iterable[str]) -> None:
        """Mask these from now on, also URL-encoded and in base64; those under 8 characters are left alone."""
        for secret in secrets:
            if len(secret) >= SHORTEST:
                encoded = base64.b64encode(secret.encode()).decode()
                self._spellings |= {secret, quote(secret, safe=""), encoded, encoded.rstrip("=")}

    def finds(self, text: str) -> bool:
        """Return whether the text contains a known secret."""
        return any(spelling in text for spelling in self._spellings)

    def __call__(self, text: str) -> str:
        """Return the text with every known secret masked, longer spellings first."""
        for spelling in sorted(self._spellings, key=len, reverse=True):
            text = text.replace(spelling, MASK)
        return text
