"""Keeps known secrets, and what is shaped like one, out of a text that people read."""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from types import MappingProxyType
from urllib.parse import quote, quote_plus

MASK = "[masked]"
# Anything shorter is a flag or a name, and masking it would break up words.
SHORTEST = 8
# A part of base64 that is shorter is found by chance.
SHORTEST_PART = 12
# A line of a text of several lines, such as a key in PEM, that is no secret by itself when it is shorter.
SHORTEST_LINE = 20
# How much of base64 depends on what is in front of the secret: characters by the number of bytes there, modulo 3.
_SHARED = MappingProxyType({0: 0, 1: 2, 2: 3})
_BITS_OF_BYTE, _BITS_OF_CHARACTER = 8, 6

# What is a secret by its form, also where its value is unknown: keys of Dify and of providers, bearer tokens, tokens of
# sessions, passwords in URLs, private keys. The part in `secret` is masked.
SHAPES: Sequence[re.Pattern[str]] = (
    re.compile(
        r"(?P<secret>-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----[\s\S]*?"
        r"(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY-----|\Z))"
    ),
    re.compile(r"(?i:\b(?:bearer|basic)(?: |%20|\+))(?P<secret>[A-Za-z0-9._~+/=-]{8,})"),
    re.compile(r"\b(?P<secret>eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?)"),
    re.compile(r"\b(?P<secret>(?:app|dataset)-[A-Za-z0-9]{16,}|\b(?:sk-|hs-|dkp_)[A-Za-z0-9_-]{16,})"),
    re.compile(r"(?<=://)[^\s/:@'\"]*:(?P<secret>[^\s/@'\"]+)(?=@)"),
    re.compile(
        r"(?i)[\"']?\b[a-z_]*(?:password|passwd|secret|api_?key|access_?token|refresh_?token)[\"']?\s*[=:]\s*[\"']?"
        r"(?P<secret>[^\s\"'&,;{}\[\]]{8,})"
    ),
)


def spellings(secret: str) -> Iterator[str]:
    """Yield how a secret may be written: as it is, URL-encoded, escaped for JSON, and in base64.

    In base64 a secret inside of a longer text (`user:secret`) has one of three forms, by its distance from the start.
    """
    yield secret
    yield quote(secret, safe="")
    yield quote(secret)
    yield quote_plus(secret)
    for escaped in (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
        yield escaped
        yield json.dumps(escaped)[1:-1]
    plain = secret.encode()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        whole = encode(plain).decode()
        yield whole
        yield whole.rstrip("=")
        for before, shared in _SHARED.items():
            # Without the last character too, when it depends on what follows.
            known = (before + len(plain)) * _BITS_OF_BYTE // _BITS_OF_CHARACTER
            part = encode(b"\0" * before + plain).decode()[shared:known]
            if len(part) >= SHORTEST_PART:
                yield part


class Redactor:
    """Replaces every known secret in a text by a mask, and with `shapes` also what those match."""

    def __init__(self, shapes: Sequence[re.Pattern[str]] = ()) -> None:
        self._spellings: set[str] = set()
        self._ordered: list[str] = []
        self._shapes = shapes

    def __repr__(self) -> str:
        """Return the number of known spellings, not the spellings."""
        return f"<Redactor of {len(self._spellings)} spellings>"

    def learn(self, secrets: Iterable[str]) -> None:
        """Mask these from now on, in all their `spellings`; those under 8 characters are left alone.

        Of a text of several lines, each long line is a secret too: logs break it up.
        """
        for secret in secrets:
            lines = secret.splitlines() if "\n" in secret.strip() else []
            parts = [one for one in lines if len(one) >= SHORTEST_LINE and not one.startswith("-----")]
            for one in (secret, secret.strip(), *parts):
                if len(one) >= SHORTEST:
                    self._spellings.update(spellings(one))
        self._ordered = sorted(self._spellings, key=len, reverse=True)

    def finds(self, text: str) -> bool:
        """Return whether the text contains a known secret."""
        return any(spelling in text for spelling in self._spellings)

    def __call__(self, text: str) -> str:
        """Return the text with every known secret masked, longer spellings first, then what has the shape of one."""
        for spelling in self._ordered:
            text = text.replace(spelling, MASK)
        for shape in self._shapes:
            text = shape.sub(_without_secret, text)
        return text


def _without_secret(found: re.Match[str]) -> str:
    start, end = found.start("secret") - found.start(), found.end("secret") - found.start()
    return f"{found[0][:start]}{MASK}{found[0][end:]}"
