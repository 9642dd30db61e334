"""The settings of OAuth 2.0 for the service API: `dify:oauth`, and the file of its clients.

The gateway's own code checks the result, before anything is created.
"""

import json
import re
import ssl
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from dify_gateway import config as gateway
from dify_gateway import keys
from dify_gateway.reading import FileError
from infra import hints
from infra.settings.apps import CANARY
from infra.settings.oauth_clients import (
    CANARY_CLIENT,
    CANARY_TENANT,
    SIGNING_KEYS,
    ClientsFile,
    ClientsFileError,
    read_clients,
    read_clients_path,
)
from infra.settings.oauth_limits import OAuthLimits, default_oauth_limits, read_oauth_limits
from infra.settings.own_apps import report_app
from infra.settings.rate_limits import GroupLimits, read_group
from infra.settings.reader import Problems, Section
from infra.settings.stack_secrets import SecretReader
from infra.settings.tenant_limits import undercut

if TYPE_CHECKING:
    import pulumi

_AUDIENCE = gateway.ANY_TEXT
_IN_RELEASE = re.compile(r"^(?P<file>[a-z]+\.json): (?P<rest>.*)$", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """The clients that share an app: all their calls have the key of that app, and count together.

    Of `limits`, `rate` and `concurrent` hold for the tenant; no two tenants have the same `app`.
    """

    name: str
    app: str
    limits: GroupLimits


@dataclass(frozen=True, kw_only=True)
class OAuth:
    """Everything about `/oauth/`, fully checked.

    `issuer` is an origin, `clients` maps a client id to its entry of the gateway's clients.json (hashes, no
    secrets), `issuers` are external issuers as the gateway's config.json has them, and `ca_files` the PEM files that
    they name; `limits` are those that are not a tenant's. With `dify:canary` the smoke tests' tenant is among
    `tenants`; its client is not among `clients`.
    """

    issuer: str
    audience: str
    token_seconds: int
    tenants: tuple[Tenant, ...]
    clients: Mapping[str, Mapping[str, Any]]
    issuers: tuple[Mapping[str, Any], ...]
    ca_files: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    limits: OAuthLimits = field(default_factory=default_oauth_limits)
    clients_file: Path = Path()
    clients_digest: str = ""
    signing_keys: "pulumi.Output[str] | None" = None


@dataclass(frozen=True, kw_only=True)
class Around:
    """Other settings that these depend on. `v1` applies for an API key; `active_requests` is Dify's limit of an app."""

    stack: str
    settings_file: Path
    public_url: str
    apps_dir: Path | None
    canary: bool
    v1: GroupLimits
    active_requests: int


class OAuthReader:
    """Reads `dify:oauth` and what belongs to it. Every method reports to the same list of problems."""

    def __init__(
        self,
        section: Section,
        problems: Problems,
        *,
        origin: Callable[[str, str], str],
        secrets: SecretReader,
        around: Around,
    ) -> None:
        self._section = section
        self._problems = problems
        # (key, value) -> the value, an origin.
        self._origin = origin
        self._secrets = secrets
        self._around = around

    def read(self) -> OAuth | None:
        """Return the settings, None when OAuth is off; only to be used when no problem was reported."""
        section = self._section
        if not section.boolean("enabled"):
            return None
        before = len(self._problems.lines)
        issuer = self._issuer()
        tenants = self._tenants()
        clients = self._clients_file()
        issuers, ca_files = self._issuers()
        signing_keys = self._secrets.text(SIGNING_KEYS, required=True)
        oauth = OAuth(
            issuer=issuer,
            audience=self._audience(issuer),
            token_seconds=section.integer(
                "tokenSeconds", gateway.SHORTEST_TOKEN_SECONDS, keys.LONGEST_TOKEN_SECONDS
            ),
            tenants=tenants,
            clients=clients.clients,
            issuers=issuers,
            ca_files=ca_files,
            limits=read_oauth_limits(section.section("limits", section.defaults["limits"])),
            clients_file=clients.path,
            clients_digest=clients.digest,
            signing_keys=self._secrets.conceal(signing_keys),
        )
        if len(self._problems.lines) == before:
            self._check_with_gateway(oauth, clients)
        return oauth

    def _issuer(self) -> str:
        given = self._section.text("issuer")
        return self._origin(self._section.key("issuer"), given) if given else self._around.public_url

    def _audience(self, issuer: str) -> str:
        audience = self._section.text("audience") or issuer
        if not _AUDIENCE.fullmatch(audience):
            self._problems.add(
                self._section.key("audience"),
                audience,
                "cannot be the `aud` of a token",
                "use a URL or a short ASCII text",
            )
        return audience

    def _tenants(self) -> tuple[Tenant, ...]:
        found: list[Tenant] = []
        owners: dict[str, str] = {}
        for name, value in self._section.mapping("tenants").items():
            tenant = self._tenant(self._section.key(f"tenants.{name}"), name, value)
            if tenant is None:
                continue
            if tenant.app in owners:
                self._problems.add(
                    self._section.key(f"tenants.{name}.app"),
                    tenant.app,
                    f"is the app of tenant {owners[tenant.app]} already: Dify trusts the `user` that a caller names, "
                    "so two tenants on one app could read each other's conversations",
                    "give each tenant an app of its own",
                )
            owners[tenant.app] = name
            found.append(tenant)
        if self._around.canary:
            usual = self._around.v1
            limits = GroupLimits(rate=usual.rate, concurrent=usual.concurrent)
            found.append(Tenant(name=CANARY_TENANT, app=CANARY, limits=limits))
        if not found:
            self._problems.add(
                self._section.key("tenants"),
                {},
                "no client could get a token",
                "add a tenant, or set enabled to false",
            )
        return tuple(found)

    def _tenant(self, key: str, name: str, value: object) -> Tenant | None:
        if not gateway.TENANT.fullmatch(name):
            self._problems.add(key, name, "is not a tenant's name", f"use {gateway.TENANT_RULE}")
            return None
        if name == CANARY_TENANT:
            self._problems.add(key, name, "is the smoke tests' own tenant", "choose another name")
            return None
        if not isinstance(value, dict):
            self._problems.add(key, value, "not an object", "use {app: <name>}")
            return None
        prefix = f"{key}."
        app = Section(self._problems, value, {"app": ""}, prefix).text("app")
        if not report_app(self._section, f"{prefix}app", app, self._around.apps_dir):
            return None
        limits = self._limits({part: one for part, one in value.items() if part != "app"}, prefix)
        self._problems.warnings += undercut(name, limits, self._around.v1)
        return Tenant(name=name, app=app, limits=limits)

    def _limits(self, given: Mapping[str, Any], prefix: str) -> GroupLimits:
        """Read a tenant's limits; what is left out is as for an API key of /v1."""
        usual = self._around.v1
        defaults = {
            "requests": usual.rate.requests if usual.rate else 0,
            "seconds": usual.rate.seconds if usual.rate else 1,
            # The burst of one rate does not apply to another.
            "burst": usual.rate.burst if usual.rate and not {"requests", "seconds"} & set(given) else 0,
            "concurrent": usual.concurrent,
        }
        section = Section(self._problems, given, defaults, prefix)
        section.refuse_unknown()
        return read_group(section, self._around.active_requests)

    def _clients_file(self) -> ClientsFile:
        key, given = self._section.key("clientsFile"), self._section.text("clientsFile")
        path = read_clients_path(self._section, self._around.stack, self._around.settings_file)
        if not path.is_absolute():
            return ClientsFile(path=path)
        try:
            found = read_clients(path)
        except ClientsFileError as problem:
            self._problems.add(key, str(path), problem.reason, problem.fix)
            return ClientsFile(path=path)
        if given and not found.digest:
            self._problems.add(key, given, "does not exist", 'make it with this content: {"clients": {}}')
        if CANARY_CLIENT in found.clients:
            self._problems.add(
                key, str(path), f"has a client {CANARY_CLIENT}, which is the smoke tests' own", "rename it"
            )
        return found

    def _issuers(self) -> tuple[tuple[Mapping[str, Any], ...], Mapping[str, str]]:
        """Read external issuers; `ca_file`, a path here, becomes the name of a file in the gateway's release."""
        key, listed = self._section.key("issuers"), self._section.raw("issuers")
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            self._problems.add(
                key, listed, "not a list of objects", "use [{issuer: ..., audience: ..., tenant: ...}]"
            )
            return (), {}
        found: list[dict[str, Any]] = []
        ca_files: dict[str, str] = {}
        for number, one in enumerate(listed):
            entry = {str(part): value for part, value in one.items()}
            if "ca_file" in entry:
                name = f"issuer-{number}.pem"
                ca_files[name] = self._pem(f"{key}[{number}].ca_file", entry["ca_file"])
                entry["ca_file"] = name
            found.append(entry)
        return tuple(found), MappingProxyType(ca_files)

    def _pem(self, key: str, given: object) -> str:
        path = Path(str(given)).expanduser()
        try:
            text = path.read_text(encoding="utf-8") if path.is_absolute() else ""
            ssl.create_default_context(cadata=text)
        except (OSError, ValueError):
            text = ""
        if not text:
            self._problems.add(
                key,
                given,
                "is not a file with certificates in PEM",
                "use the absolute path of the issuer's root file",
            )
        return text

    def _check_with_gateway(self, oauth: OAuth, clients: ClientsFile) -> None:
        """Read the configuration with the gateway's own code, with placeholders for secrets."""
        app_keys = {tenant.name: f"app-{number:016}" for number, tenant in enumerate(oauth.tenants)}
        with tempfile.TemporaryDirectory(prefix="dify-kit-") as name:
            directory = Path(name)
            for file, text in {
                **documents(oauth, redis={"url": "redis://redis/0", "seal_key": "0" * 64}, app_keys=app_keys),
                "clients.json": clients.text or EMPTY_CLIENTS,
                "keys.json": json.dumps(keys.new_document()),
            }.items():
                (directory / file).write_text(text, encoding="utf-8")
            try:
                gateway.load(directory, "settings")
            except FileError as problem:
                self._report(str(problem), clients.path)

    def _report(self, message: str, clients: Path) -> None:
        """Report the gateway's message with the names of the settings."""
        found = _IN_RELEASE.match(message)
        file, rest = (found["file"], found["rest"]) if found else ("", message)
        rest = rest.replace("tenants.json", "dify:oauth.tenants")
        if file == "clients.json":
            self._problems.add(
                self._section.key("clientsFile"),
                str(clients),
                rest,
                f"`{hints.kit('client', 'list', stack=self._around.stack)}` shows the clients",
            )
        else:
            self._problems.lines.append(f"dify:oauth.{rest}")


EMPTY_CLIENTS = '{"clients": {}}\n'


def documents(oauth: OAuth, *, redis: Mapping[str, str], app_keys: Mapping[str, str]) -> dict[str, str]:
    """Return the gateway's config.json and tenants.json, and the files that they name.

    `redis` has its `url` and the `seal_key`; `app_keys` maps each tenant to the key of its app. Equal settings give
    equal texts.
    """
    settings = {
        "issuer": oauth.issuer,
        "audience": oauth.audience,
        "token_seconds": oauth.token_seconds,
        "redis": dict(redis),
        "limits": oauth.limits.failures.document(),
        "issuers": [dict(one) for one in oauth.issuers],
    }
    tenants = {
        tenant.name: {"app_key": app_keys[tenant.name], "limits": tenant.name} for tenant in oauth.tenants
    }
    return {
        "config.json": json.dumps(settings, sort_keys=True),
        "tenants.json": json.dumps({"tenants": tenants}, sort_keys=True),
        **oauth.ca_files,
    }
