"""How a document's text is cut, and by which words a piece of it is found."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator

KEYWORDS = 10
# A piece of a knowledge base of high quality is about as long as Dify's 500 tokens.
PIECE = 2000


def keywords(text: str) -> list[str]:
    """Return the words by which a text is found, the most frequent first."""
    words = (word.lower() for word in re.findall(r"\w+", text) if len(word) > 1)
    return [word for word, _ in Counter(words).most_common(KEYWORDS)]


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a text."""
    return [piece.strip() for piece in text.split("\n\n") if piece.strip()]


def chunks(text: str) -> Iterator[str]:
    """Yield paragraphs put together to pieces of a bounded length."""
    piece = ""
    for paragraph in paragraphs(text):
        for start in range(0, len(paragraph), PIECE):
            part = paragraph[start : start + PIECE]
            if piece and len(piece) + len(part) > PIECE:
                yield piece
                piece = ""
            piece = f"{piece}\n\n{part}" if piece else part
    if piece:
        yield piece


def checksum(text: str) -> str:
    """Return the hash by which a piece is known."""
    return hashlib.sha256(text.encode()).hexdigest()
