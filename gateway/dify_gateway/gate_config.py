"""`gate` of config.json: the provider, the rules of admission, and the lifetime of sessions."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from dify_gateway import entries
from dify_gateway.reading import Entry

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
# Registered at the provider. The paths are oauth2-proxy's, so a move from it needs no change at the provider.
PREFIX = "/oauth2"
CALLBACK, SIGNED_OUT = f"{PREFIX}/callback", f"{PREFIX}/signed_out"
SCOPE = re.compile(r"[!#-\[\]-~]{1,64}", re.ASCII)
DOMAIN = re.compile(r"(?=.{1,253}\Z)(?:(?!-)[a-z0-9-]{1,63}(?<!-)\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]", re.ASCII)
DOMAIN_RULE = "a mail domain in small letters, such as example.com"
GROUP = re.compile(r"[^\x00-\x1f\x7f]{1,256}")
MOST_LISTED = 1000
SHORTEST_SESSION, LONGEST_SESSION, DEFAULT_SESSION = 300, 30 * 86_400, 8 * 3600
DEFAULT_SCOPES = ("openid", "email", "profile")


@dataclass(frozen=True, kw_only=True)
class GateSettings:
    """`gate` of config.json. `client_secret` is a secret: never log it.

    `origins` are those of console and web app; requests for an unlisted host are redirected to the
    first one. When both domains and groups are listed, a user must match both.
    """

    origins: tuple[str, ...]
    issuer: str
    client_id: str
    client_secret: str
    scopes: tuple[str, ...]
    email_domains: tuple[str, ...]
    groups_claim: tuple[str, ...]
    allowed_groups: tuple[str, ...]
    session_seconds: int
    skew_seconds: int
    ca_file: str

    @property
    def rules(self) -> str:
        """A digest of provider and rules: sessions of another digest are invalid."""
        parts = [
            *(self.issuer, self.client_id, self.session_seconds),
            *(self.email_domains, self.groups_claim, self.allowed_groups),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    @property
    def secure(self) -> bool:
        """Whether the cookies have the Secure attribute."""
        return self.origins[0].startswith("https://")

    def origin_of(self, host: str) -> str:
        """Return the listed origin of a Host header, empty when it is not listed."""
        asked = host.lower()
        for origin in self.origins:
            parts = urlsplit(origin)
            known = {parts.netloc}
            if parts.port is None:
                known.add(f"{parts.netloc}:{DEFAULT_PORTS[parts.scheme]}")
            if asked in known:
                return origin
        return ""


def read_gate(entry: Entry, directory: Path) -> GateSettings:
    """Read the gate's settings. Raises FileError."""
    entry.only(set(GateSettings.__dataclass_fields__))
    scopes = _listed(entry, "scopes", SCOPE, "a scope of OAuth", DEFAULT_SCOPES)
    if "openid" not in scopes:
        entry.fail("scopes", "must contain openid: without it the provider returns no ID token")
    return GateSettings(
        origins=_origins(entry),
        issuer=entries.url(entry, "issuer"),
        client_id=entry.text("client_id", entries.ANY_TEXT, "the client id that the provider issued"),
        client_secret=entry.text("client_secret", entries.ANY_TEXT, "the client's secret"),
        scopes=scopes,
        email_domains=_listed(entry, "email_domains", DOMAIN, DOMAIN_RULE, ()),
        groups_claim=entries.claim(entry, "groups_claim", "groups"),
        allowed_groups=_listed(entry, "allowed_groups", GROUP, "the name of a group", ()),
        session_seconds=entry.whole("session_seconds", SHORTEST_SESSION, LONGEST_SESSION, DEFAULT_SESSION),
        skew_seconds=entry.whole("skew_seconds", 0, 300, 30),
        ca_file=entries.ca_file(entry, directory),
    )


def _origins(entry: Entry) -> tuple[str, ...]:
    given = entry.values.get("origins")
    if not isinstance(given, list) or not given or not all(isinstance(one, str) for one in given):
        entry.fail("origins", "must be a list of origins, such as https://dify.example.com")
    for one in given:
        if entries.url_problem(one) or urlsplit(one).path:
            entry.fail("origins", "must contain only origins, such as https://dify.example.com")
    if len({urlsplit(one).scheme for one in given}) > 1:
        entry.fail("origins", "mixes http and https: give all of them the same scheme")
    return tuple(dict.fromkeys(given))


def _listed(
    entry: Entry, key: str, pattern: re.Pattern[str], rule: str, default: tuple[str, ...]
) -> tuple[str, ...]:
    value = entry.values.get(key, list(default))
    if not isinstance(value, list) or len(value) > MOST_LISTED:
        entry.fail(key, f"must be a list of at most {MOST_LISTED} texts")
    for one in value:
        if not isinstance(one, str) or not pattern.fullmatch(one):
            entry.fail(key, f"must contain texts, each {rule}")
    return tuple(dict.fromkeys(value))
