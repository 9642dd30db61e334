"""The gate in front of console and web app, as config.json has it: the provider, who may pass, and for how long."""

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
# Registered at the provider. The names are oauth2-proxy's: who comes from there changes nothing at the provider.
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

    `origins` are those of the console and the web app; a request for another one is redirected to the first. Where both
    domains and groups are listed, a user must match both.
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
        """A name for what a session stands for: with another provider or other rules, people sign in again."""
        told = [
            *(self.issuer, self.client_id, self.session_seconds),
            *(self.email_domains, self.groups_claim, self.allowed_groups),
        ]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]

    @property
    def secure(self) -> bool:
        """Whether browsers may send the cookies by https alone."""
        return self.origins[0].startswith("https://")

    def origin_of(self, host: str) -> str:
        """Return the origin that a Host header names, empty for one that is not listed."""
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
        entry.fail("scopes", "must hold openid: without it no provider says who signed in")
    return GateSettings(
        origins=_origins(entry),
        issuer=entries.url(entry, "issuer"),
        client_id=entry.text("client_id", entries.ANY_TEXT, "the client id that the provider gave"),
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
            entry.fail("origins", "must hold origins alone, such as https://dify.example.com")
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
            entry.fail(key, f"must hold texts, each {rule}")
    return tuple(dict.fromkeys(value))
