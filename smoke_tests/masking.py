"""Keeps secrets out of everything that a test run prints: tracebacks, captured logs, JUnit and HTML reports."""

from infra.masking import MASK, SHORTEST, Redactor

__all__ = ["MASK", "SHORTEST", "Redactor", "Secret"]


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
