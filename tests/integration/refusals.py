"""What a refusal of an external server must say."""

from collections.abc import Iterable


def assert_one(found: list[str], words: Iterable[str], secret: str) -> None:
    """Assert that one thing is refused, in these words, and that the server's secret is not among them."""
    assert len(found) == 1, found
    assert all(word in found[0] for word in words), found
    assert secret not in found[0]
