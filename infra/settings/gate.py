"""The gate in front of console and web app: `dify:oidcGate`, with the client's secret.

The gateway's own code checks the result, before anything is created.
"""

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dify_gateway import entries
from dify_gateway import gate_config as gateway
from dify_gateway.reading import Entry, FileError
from infra.settings.ca import read_ca
from infra.settings.reader import Problems, Section
from infra.settings.stack_secrets import SecretReader

if TYPE_CHECKING:
    import pulumi

CLIENT_SECRET = "oidcGateClientSecret"  # noqa: S105  # a setting's name
CA_FILE = "gate-ca.pem"
SHORTEST_MINUTES = gateway.SHORTEST_SESSION // 60
LONGEST_MINUTES = gateway.LONGEST_SESSION // 60
# Issuers where anyone can create an account.
PUBLIC_ISSUERS: Mapping[str, str] = {
    "accounts.google.com": "every Google account would be admitted",
    "login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad": "every Microsoft account would be admitted",
}
_TENANTLESS = re.compile(r"https://login\.microsoftonline\.com/(common|organizations|consumers)(/|$)")
DISCOVERY = "/.well-known/openid-configuration"


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The gate, fully checked. `origins` are those of console and web app, the console's first.

    `groups_claim` is a path of claims, `session_seconds` how long a session lasts, `ca` the provider's CA in
    PEM (empty: the public ones). Without `web_app` the console alone is behind the gate.
    """

    origins: tuple[str, ...]
    issuer: str
    client_id: str
    scopes: tuple[str, ...]
    email_domains: tuple[str, ...]
    groups_claim: tuple[str, ...]
    allowed_groups: tuple[str, ...]
    session_seconds: int
    web_app: bool
    ca: str = ""
    client_secret: "pulumi.Output[str] | None" = field(default=None)

    @property
    def secure(self) -> bool:
        """Whether users reach it by https."""
        return self.origins[0].startswith("https://")

    @property
    def callback_urls(self) -> tuple[str, ...]:
        """The redirect URIs to register at the provider."""
        return tuple(f"{origin}{gateway.CALLBACK}" for origin in self.origins)

    @property
    def signed_out_urls(self) -> tuple[str, ...]:
        """The addresses that the provider may redirect to after a sign-out."""
        return tuple(f"{origin}{gateway.SIGNED_OUT}" for origin in self.origins)


class GateReader:
    """Reads `dify:oidcGate`. `console` and `app` are the origins of the console and of the web app."""

    def __init__(
        self,
        section: Section,
        problems: Problems,
        *,
        secrets: SecretReader,
        console: str,
        app: str,
    ) -> None:
        self._section = section
        self._problems = problems
        self._secrets = secrets
        self._console = console
        self._app = app

    def read(self) -> Gate | None:
        """Return the settings, None when the gate is off; only to be used when no problem was reported."""
        section = self._section
        if not section.boolean("enabled"):
            return None
        before = len(self._problems.lines)
        web_app = section.boolean("webApp")
        secret = self._secrets.text(CLIENT_SECRET, required=True)
        gate = Gate(
            origins=tuple(dict.fromkeys((self._console, self._app) if web_app else (self._console,))),
            issuer=self._issuer(),
            client_id=self._client_id(),
            scopes=section.texts("scopes"),
            email_domains=section.texts("emailDomains"),
            groups_claim=self._groups_claim(),
            allowed_groups=section.texts("allowedGroups"),
            session_seconds=section.integer("sessionMinutes", SHORTEST_MINUTES, LONGEST_MINUTES) * 60,
            web_app=web_app,
            ca=read_ca(section),
            client_secret=self._secrets.conceal(secret),
        )
        if len(self._problems.lines) == before:
            self._refuse_public_issuer(gate)
            self._check_with_gateway(gate)
        return gate

    def _issuer(self) -> str:
        key, issuer = self._section.key("issuer"), self._section.text("issuer")
        if not issuer:
            self._problems.add(key, issuer, "is empty", "use the provider's issuer URL, https://...")
            return issuer
        fix = "copy `issuer` from the provider's discovery document"
        if issuer.endswith(DISCOVERY):
            self._problems.add(
                key, issuer, "is the address of the discovery document", f"leave {DISCOVERY} out"
            )
        elif problem := entries.url_problem(issuer):
            self._problems.add(key, issuer, problem, fix)
        elif _TENANTLESS.match(issuer):
            self._problems.add(
                key,
                issuer,
                "means every tenant, and no token has this issuer",
                "use https://login.microsoftonline.com/<tenant id>/v2.0",
            )
        elif not issuer.startswith("https://") and self._console.startswith("https://"):
            self._problems.add(
                key,
                issuer,
                "passwords and codes would be sent in plain text",
                "use https (http is accepted only while dify:publicUrl is http too)",
            )
        return issuer

    def _client_id(self) -> str:
        client_id = self._section.text("clientId")
        if not client_id.strip():
            self._problems.add(
                self._section.key("clientId"),
                client_id,
                "is empty",
                "use the client id that the provider gave",
            )
        return client_id

    def _groups_claim(self) -> tuple[str, ...]:
        """Read a claim's name, or the names that lead into nested objects."""
        if isinstance(self._section.raw("groupsClaim"), list):
            return self._section.texts("groupsClaim")
        return (self._section.text("groupsClaim"),)

    def _refuse_public_issuer(self, gate: Gate) -> None:
        """Report a gate that admits any account on the internet."""
        if gate.email_domains or gate.allowed_groups:
            return
        parts = urlsplit(gate.issuer)
        for known, why in PUBLIC_ISSUERS.items():
            if f"{parts.netloc}{parts.path}".startswith(known):
                self._problems.add(
                    self._section.key("emailDomains"), "", why, "list your mail domains, or allowedGroups"
                )

    def _check_with_gateway(self, gate: Gate) -> None:
        """Read the configuration with the gateway's own code, with a placeholder for the secret."""
        with tempfile.TemporaryDirectory(prefix="dify-kit-") as name:
            directory = Path(name)
            for file, text in gate_files(gate).items():
                (directory / file).write_text(text, encoding="utf-8")
            try:
                gateway.read_gate(Entry("oidcGate", "", gate_document(gate, "harmless")), directory)
            except FileError as problem:
                self._problems.lines.append(f"dify:oidcGate.{_with_settings_names(str(problem))}")


def _with_settings_names(message: str) -> str:
    """Return the gateway's message with the names of the settings."""
    names: Sequence[tuple[str, str]] = (
        ("client_id", "clientId"),
        ("email_domains", "emailDomains"),
        ("groups_claim", "groupsClaim"),
        ("allowed_groups", "allowedGroups"),
        ("session_seconds", "sessionMinutes"),
        ("ca_file", "caFile"),
    )
    rest = message.removeprefix("oidcGate: ")
    for theirs, ours in names:
        rest = rest.replace(theirs, ours)
    return rest


def gate_document(gate: Gate, client_secret: str) -> dict[str, Any]:
    """Return `gate` of the gateway's config.json. It holds the secret."""
    return {
        "origins": list(gate.origins),
        "issuer": gate.issuer,
        "client_id": gate.client_id,
        "client_secret": client_secret,
        "scopes": list(gate.scopes),
        "email_domains": list(gate.email_domains),
        "groups_claim": list(gate.groups_claim),
        "allowed_groups": list(gate.allowed_groups),
        "session_seconds": gate.session_seconds,
        **({"ca_file": CA_FILE} if gate.ca else {}),
    }


def gate_files(gate: Gate) -> dict[str, str]:
    """Return the files that `gate` of config.json names."""
    return {CA_FILE: gate.ca} if gate.ca else {}
