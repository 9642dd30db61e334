"""Realms for Keycloak, in the form of its admin API: services with a tenant and scopes, and people who sign in.

A service is a client that gets tokens by client credentials. `gate` is a client of the authorization code flow, with
any redirect address; `alice` is a person.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dify_gateway.scopes import SCOPES

# What a token says besides Keycloak's own: for whom it is, and whose it is.
AUDIENCE = "dify"
TENANT_CLAIM = "organisation"
GATE = "gate"
PERSON = "alice"


@dataclass(frozen=True, kw_only=True)
class ServiceClient:
    """A service: what its tokens name. `seconds` is how long they live."""

    id: str
    tenant: str = "ACME"
    audience: str = AUDIENCE
    scopes: tuple[str, ...] = ("chat",)
    seconds: int = 300
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(24))


@dataclass(frozen=True, kw_only=True)
class Realm:
    """A realm: its services, the secret of `gate`, and the password of `alice`."""

    name: str
    services: tuple[ServiceClient, ...] = ()
    gate_secret: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    password: str = field(default_factory=lambda: secrets.token_urlsafe(16))

    def service(self, name: str) -> ServiceClient:
        """Return a service by its id."""
        return next(one for one in self.services if one.id == name)


def realm_document(realm: Realm) -> Mapping[str, Any]:
    """Return the realm with its person. The built-in scopes come with it only when it names none."""
    return {
        "realm": realm.name,
        "enabled": True,
        "sslRequired": "all",
        "users": [
            {
                "username": PERSON,
                "enabled": True,
                "email": f"{PERSON}@example.com",
                "emailVerified": True,
                # Without a name Keycloak asks for it at the first sign-in.
                "firstName": "Alice",
                "lastName": "Example",
                "credentials": [{"type": "password", "value": realm.password, "temporary": False}],
            }
        ],
    }


def scope_documents() -> list[Mapping[str, Any]]:
    """Return the scopes that a token can name."""
    return [
        {"name": scope, "protocol": "openid-connect", "attributes": {"include.in.token.scope": "true"}}
        for scope in SCOPES
    ]


def client_documents(realm: Realm) -> list[Mapping[str, Any]]:
    """Return the realm's clients."""
    return [_gate(realm), *(_service(one) for one in realm.services)]


def _gate(realm: Realm) -> Mapping[str, Any]:
    return {
        "clientId": GATE,
        "secret": realm.gate_secret,
        "publicClient": False,
        "standardFlowEnabled": True,
        "directAccessGrantsEnabled": False,
        "redirectUris": ["*"],
        "attributes": {"post.logout.redirect.uris": "*"},
    }


def _service(client: ServiceClient) -> Mapping[str, Any]:
    mappers = [
        _mapper("audience", "oidc-audience-mapper", {"included.custom.audience": client.audience}),
        _mapper(
            "tenant",
            "oidc-hardcoded-claim-mapper",
            {"claim.name": TENANT_CLAIM, "claim.value": client.tenant, "jsonType.label": "String"},
        ),
    ]
    return {
        "clientId": client.id,
        "secret": client.secret,
        "publicClient": False,
        "standardFlowEnabled": False,
        "serviceAccountsEnabled": True,
        "attributes": {"access.token.lifespan": str(client.seconds)},
        # `basic` holds `sub`.
        "defaultClientScopes": ["basic", *client.scopes],
        "protocolMappers": mappers,
    }


def _mapper(name: str, kind: str, config: Mapping[str, str]) -> Mapping[str, Any]:
    return {
        "name": name,
        "protocol": "openid-connect",
        "protocolMapper": kind,
        "config": {**config, "access.token.claim": "true"},
    }
