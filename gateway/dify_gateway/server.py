"""The authorization server: Authlib's endpoints and grant with this service's clients, tokens and storage."""

import json
import time
from typing import Any

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.integrations.flask_oauth2.requests import FlaskOAuth2Payload
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import (
    ClientMixin,
    InvalidClientError,
    InvalidRequestError,
    InvalidScopeError,
    OAuth2Request,
    TokenMixin,
    UnsupportedGrantTypeError,
    UnsupportedTokenTypeError,
)
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from flask import Flask, Request, Response, g
from flask import request as flask_request

from dify_gateway import client_secrets, jose, tokens
from dify_gateway.assertions import PrivateKeyJwt
from dify_gateway.config import PRIVATE_KEY, SCOPES, SECRET_BASIC, SECRET_POST, Client, Configuration
from dify_gateway.service import Loaded

GRANT_TYPE: str = ClientCredentialsGrant.GRANT_TYPE
METHODS = [SECRET_BASIC, SECRET_POST, PRIVATE_KEY]
CHALLENGE = 'Basic realm="oauth", charset="UTF-8"'
REFUSED = "The client could not be authenticated"
# Stands for unknown client ids: they cost the same work as a wrong secret and get the same answer.
NOBODY = Client(
    id="",
    tenant="",
    scopes=(),
    methods=frozenset(METHODS),
    hashes=(),
    keys=(),
    token_seconds=0,
    disabled=True,
    not_before=0,
)


class FormRequest(OAuth2Request):  # type: ignore[misc]  # Authlib has no types
    """The request as Authlib reads it: the form of the body alone, never the query string.

    Authlib refuses URLs without https. nginx decides whether clients must use TLS; this service sees only
    the request of nginx, so the URL is always given with https.
    """

    def __init__(self, request: Request) -> None:
        super().__init__(request.method, f"https://gateway{request.path}", headers=request.headers)
        self._form = request.form
        self.payload = FormPayload(request)

    @property
    def args(self) -> dict[str, str]:
        """No parameters: those of the URL are not read."""
        return {}

    @property
    def form(self) -> Any:  # noqa: ANN401  # werkzeug's MultiDict
        """The parameters of the body."""
        return self._form


class FormPayload(FlaskOAuth2Payload):  # type: ignore[misc]  # Authlib has no types
    """Parameters of the body, where Authlib's own class would add those of the URL."""

    @property
    def data(self) -> Any:  # noqa: ANN401  # werkzeug's MultiDict
        """The parameters of the body."""
        return self._request.form


class OAuthClient(ClientMixin):  # type: ignore[misc]  # Authlib has no types
    """A configured client with Authlib's interface."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def get_client_id(self) -> str:
        """Return its id."""
        return self.client.id

    def get_allowed_scope(self, scope: str | None) -> str:
        """Return the scopes of a token: the requested ones, or all of the client."""
        return " ".join(dict.fromkeys((scope or "").split())) or " ".join(self.client.scopes)

    def check_client_secret(self, client_secret: str) -> bool:
        """Return whether a secret matches the client's hashes; false for a disabled client."""
        right = client_secrets.matches(client_secret, self.client.hashes)
        return right and not self.client.disabled

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:  # noqa: ARG002  # the same for all
        """Return whether the client may authenticate this way."""
        return method in self.client.methods and not self.client.disabled

    def check_grant_type(self, grant_type: str) -> bool:
        """Return whether the client may use a grant: client_credentials only."""
        return grant_type == GRANT_TYPE


class OwnToken(TokenMixin):  # type: ignore[misc]  # Authlib has no types
    """An access token of this service that is valid apart from revocation, with Authlib's interface."""

    def __init__(self, configuration: Configuration, token: tokens.AccessToken, *, revoked: bool) -> None:
        self.configuration = configuration
        self.token = token
        self.revoked = revoked

    def check_client(self, client: OAuthClient) -> bool:
        """Return whether the token belongs to the client."""
        asking: Client = client.client
        return self.token.client_id == asking.id

    def is_expired(self) -> bool:
        """Return whether it has expired."""
        return self.token.expires_at <= time.time()

    def is_revoked(self) -> bool:
        """Return whether it was revoked. Raises UnavailableError."""
        return self.revoked


class Grant(ClientCredentialsGrant):  # type: ignore[misc]  # Authlib has no types
    """Authlib's grant with the three authentication methods, and scopes limited to the client's own."""

    TOKEN_ENDPOINT_AUTH_METHODS = METHODS

    def validate_requested_scope(self) -> None:
        """Refuse unknown scopes, and those that this client does not have."""
        super().validate_requested_scope()
        asked = set((self.request.payload.scope or "").split())
        if not asked <= set(self.request.client.client.scopes):
            raise InvalidScopeError(description="The client may not have all of the requested scopes")


class Revocation(RevocationEndpoint):  # type: ignore[misc]  # Authlib has no types
    """RFC 7009, for a client's own access tokens."""

    CLIENT_AUTH_METHODS = METHODS

    def query_token(self, token_string: str, token_type_hint: str | None) -> OwnToken | None:  # noqa: ARG002
        """Return the token, None when it is foreign or expired and needs no revocation."""
        return own_token(current(), token_string)

    def revoke_token(self, token: OwnToken, request: FormRequest) -> None:  # noqa: ARG002  # Authlib's signature
        """Revoke the token until it expires."""
        current().state.revoke(token.token.jti, token.token.issued_at, token.token.expires_at)
        g.event = {"event": "token revoked", "client": token.token.client_id, "tenant": token.token.tenant}


class Introspection(IntrospectionEndpoint):  # type: ignore[misc]  # Authlib has no types
    """RFC 7662, for a client's own access tokens: any other is reported as inactive."""

    CLIENT_AUTH_METHODS = METHODS

    def query_token(self, token_string: str, token_type_hint: str | None) -> OwnToken | None:  # noqa: ARG002
        """Return the token, None when it is not valid."""
        return own_token(current(), token_string)

    def check_permission(self, token: OwnToken, client: OAuthClient, request: FormRequest) -> bool:  # noqa: ARG002
        """Return whether the client may introspect the token."""
        return token.check_client(client)

    def introspect_token(self, token: OwnToken) -> dict[str, Any]:
        """Return the introspection response of an active token."""
        access = token.token
        return {
            "active": True,
            "token_type": "Bearer",
            "client_id": access.client_id,
            "sub": access.client_id,
            "tenant": access.tenant,
            "scope": " ".join(access.scopes),
            "iss": token.configuration.settings.issuer,
            "aud": token.configuration.settings.audience,
            "iat": access.issued_at,
            "exp": access.expires_at,
            "jti": access.jti,
        }


class Server(AuthorizationServer):  # type: ignore[misc]  # Authlib has no types
    """Authlib's server for Flask. `flask.g.loaded` is the configuration of the request."""

    def create_oauth2_request(self, request: Any) -> FormRequest:  # noqa: ANN401  # a request, or nothing: Flask's
        """Return the request as Authlib reads it."""
        return request if isinstance(request, FormRequest) else FormRequest(flask_request)

    def handle_error_response(self, request: FormRequest, error: OAuth2Error) -> Response:
        """Answer with an error. Every failed authentication gets the same answer."""
        g.refused = error
        if isinstance(error, InvalidClientError):
            return unauthenticated()
        if isinstance(error, UnsupportedTokenTypeError):
            # RFC 7009 uses the errors of RFC 6749, where this one has another status than 401.
            error.status_code = 400
        if isinstance(error, UnsupportedGrantTypeError):
            # Authlib's description quotes the request.
            known = "The grant_type is client_credentials"
            asked = request.form.get("grant_type")
            error = OAuth2Error(known, error=error.error) if asked else InvalidRequestError(known)
        answer: Response = super().handle_error_response(request, error)
        return answer


def unauthenticated() -> Response:
    """Return the one answer to every failed authentication."""
    body = json.dumps({"error": InvalidClientError.error, "error_description": REFUSED})
    headers = {"Cache-Control": "no-store", "Pragma": "no-cache", "WWW-Authenticate": CHALLENGE}
    return Response(body, 401, headers, content_type="application/json")


def create_server(app: Flask) -> Server:
    """Return the server with its grant and endpoints."""
    app.config["OAUTH2_SCOPES_SUPPORTED"] = list(SCOPES)
    server = Server(app, query_client=_find, save_token=_note)
    server.register_client_auth_method(PRIVATE_KEY, _by_assertion)
    server.register_grant(Grant)
    server.register_endpoint(Revocation)
    server.register_endpoint(Introspection)
    generator = BearerTokenGenerator(
        _issue, expires_generator=lambda client, _grant: client.client.token_seconds
    )
    # Authlib omits the scope when none was requested; here it is then the client's scopes.
    generator.get_allowed_scope = lambda client, scope: client.get_allowed_scope(scope)
    server.register_token_generator("default", generator)
    return server


def current() -> Loaded:
    """Return the loaded configuration at the start of this request."""
    loaded: Loaded = g.loaded
    return loaded


def own_token(loaded: Loaded, text: str) -> OwnToken | None:
    """Return a valid token of this service, revoked or not; None for any other."""
    try:
        token = tokens.verify(loaded.configuration, jose.parse(text), time.time())
    except jose.BadTokenError:
        return None
    return OwnToken(loaded.configuration, token, revoked=loaded.state.is_revoked(token.jti, token.issued_at))


def _find(client_id: str) -> OAuthClient:
    return OAuthClient(current().configuration.clients.get(client_id, NOBODY))


def _by_assertion(query_client: Any, request: FormRequest) -> OAuthClient | None:  # noqa: ANN401  # Authlib's
    loaded = current()
    method = PrivateKeyJwt(loaded.configuration.settings, loaded.state, loaded.configuration.settings.issuer)
    client: OAuthClient | None = method(query_client, request)
    # RFC 7521, section 4.2: a client_id parameter must match the assertion. An empty parameter counts as absent.
    named = request.form.get("client_id")
    if client and named and named != client.client.id:
        raise InvalidClientError(description="assertion: client_id names another client")
    return client


def _issue(client: OAuthClient, grant_type: str, user: None, scope: str) -> str:  # noqa: ARG001  # Authlib's signature
    loaded = current()
    # A token that could not be revoked in Redis must not be issued.
    loaded.state.wait_for_memory()
    return tokens.issue(loaded.configuration, client.client, scope.split(" "))


def _note(token: dict[str, Any], request: FormRequest) -> None:
    client: Client = request.client.client
    g.event = {
        "event": "token issued",
        "client": client.id,
        "tenant": client.tenant,
        "scope": token["scope"],
        "method": request.auth_method,
    }
