"""The authorization server: Authlib's endpoints and grant, on our clients, tokens and Redis. No grant of our own."""

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
from dify_gateway.config import PRIVATE_KEY, SECRET_BASIC, SECRET_POST, Client, Release
from dify_gateway.scopes import SCOPES
from dify_gateway.service import Loaded

GRANT_TYPE: str = ClientCredentialsGrant.GRANT_TYPE
METHODS = [SECRET_BASIC, SECRET_POST, PRIVATE_KEY]
CHALLENGE = 'Basic realm="oauth", charset="UTF-8"'
REFUSED = "The client could not be authenticated"
# Client ids that nobody has: the same work is done for them as for a wrong secret, and the same answer given.
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

    Authlib refuses URLs without https. Whether the client used TLS is nginx's business and settled there; this
    service sees only the hop from nginx, so the URL handed over says so.
    """

    def __init__(self, request: Request) -> None:
        super().__init__(request.method, f"https://gateway{request.path}", headers=request.headers)
        self._form = request.form
        self.payload = FormPayload(request)

    @property
    def args(self) -> dict[str, str]:
        """Nothing: parameters stand in the body."""
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
    """A configured client, as Authlib asks about it."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def get_client_id(self) -> str:
        """Return its id."""
        return self.client.id

    def get_allowed_scope(self, scope: str | None) -> str:
        """Return the scopes that a token gets: those asked for, or all of the client."""
        return " ".join(dict.fromkeys((scope or "").split())) or " ".join(self.client.scopes)

    def check_client_secret(self, client_secret: str) -> bool:
        """Compare a secret with the client's hashes; a disabled client has no right one."""
        right = client_secrets.matches(client_secret, self.client.hashes)
        return right and not self.client.disabled

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:  # noqa: ARG002  # the same for all
        """Say whether the client may authenticate this way."""
        return method in self.client.methods and not self.client.disabled

    def check_grant_type(self, grant_type: str) -> bool:
        """Say whether the client may use a grant: there is one."""
        return grant_type == GRANT_TYPE


class OwnToken(TokenMixin):  # type: ignore[misc]  # Authlib has no types
    """An access token of ours that is valid but for revocation, as Authlib asks about it."""

    def __init__(self, release: Release, token: tokens.AccessToken, *, revoked: bool) -> None:
        self.release = release
        self.token = token
        self.revoked = revoked

    def check_client(self, client: OAuthClient) -> bool:
        """Say whether the token is the client's."""
        asking: Client = client.client
        return self.token.client_id == asking.id

    def is_expired(self) -> bool:
        """Say whether its time is over."""
        return self.token.expires_at <= time.time()

    def is_revoked(self) -> bool:
        """Say whether it was revoked."""
        return self.revoked


class Grant(ClientCredentialsGrant):  # type: ignore[misc]  # Authlib has no types
    """Authlib's grant with the three ways to authenticate, and scopes that are the client's own."""

    TOKEN_ENDPOINT_AUTH_METHODS = METHODS

    def validate_requested_scope(self) -> None:
        """Refuse scopes that nobody has, and those that this client has not."""
        super().validate_requested_scope()
        asked = set((self.request.payload.scope or "").split())
        if not asked <= set(self.request.client.client.scopes):
            raise InvalidScopeError(description="The client may not have all of the requested scopes")


class Revocation(RevocationEndpoint):  # type: ignore[misc]  # Authlib has no types
    """RFC 7009, for a client's own access tokens."""

    CLIENT_AUTH_METHODS = METHODS

    def query_token(self, token_string: str, token_type_hint: str | None) -> OwnToken | None:  # noqa: ARG002
        """Return the token, nothing when it is none of ours or over: that needs no revocation."""
        return own_token(current(), token_string)

    def revoke_token(self, token: OwnToken, request: FormRequest) -> None:  # noqa: ARG002  # Authlib's signature
        """Let it be refused from now on."""
        current().state.revoke(token.token.jti, token.token.issued_at, token.token.expires_at)
        g.event = {"event": "token revoked", "client": token.token.client_id, "tenant": token.token.tenant}


class Introspection(IntrospectionEndpoint):  # type: ignore[misc]  # Authlib has no types
    """RFC 7662, for a client's own access tokens: any other is told to be inactive."""

    CLIENT_AUTH_METHODS = METHODS

    def query_token(self, token_string: str, token_type_hint: str | None) -> OwnToken | None:  # noqa: ARG002
        """Return the token, nothing when it is not valid."""
        return own_token(current(), token_string)

    def check_permission(self, token: OwnToken, client: OAuthClient, request: FormRequest) -> bool:  # noqa: ARG002
        """Say whether the client may know about the token."""
        return token.check_client(client)

    def introspect_token(self, token: OwnToken) -> dict[str, Any]:
        """Return what the token says."""
        told = token.token
        return {
            "active": True,
            "token_type": "Bearer",
            "client_id": told.client_id,
            "sub": told.client_id,
            "tenant": told.tenant,
            "scope": " ".join(told.scopes),
            "iss": token.release.settings.issuer,
            "aud": token.release.settings.audience,
            "iat": told.issued_at,
            "exp": told.expires_at,
            "jti": told.jti,
        }


class Server(AuthorizationServer):  # type: ignore[misc]  # Authlib has no types
    """Authlib's server for Flask. What is loaded for the request stands in `flask.g`."""

    def create_oauth2_request(self, request: Any) -> FormRequest:  # noqa: ANN401  # a request, or nothing: Flask's
        """Return the request as Authlib reads it."""
        return request if isinstance(request, FormRequest) else FormRequest(flask_request)

    def handle_error_response(self, request: FormRequest, error: OAuth2Error) -> Response:
        """Answer with an error. A failed authentication gets one answer, whatever failed."""
        g.refused = error
        if isinstance(error, InvalidClientError):
            return unauthenticated()
        if isinstance(error, UnsupportedTokenTypeError):
            # RFC 7009 takes its errors from RFC 6749, where this one is no 401.
            error.status_code = 400
        if isinstance(error, UnsupportedGrantTypeError):
            # Authlib's own description quotes what was sent.
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
    # Authlib drops the scope when none was asked for; ours then are the client's.
    generator.get_allowed_scope = lambda client, scope: client.get_allowed_scope(scope)
    server.register_token_generator("default", generator)
    return server


def current() -> Loaded:
    """Return what is loaded, as it was when this request began."""
    loaded: Loaded = g.loaded
    return loaded


def own_token(loaded: Loaded, text: str) -> OwnToken | None:
    """Return a token of ours that could be used, revoked or not."""
    try:
        token = tokens.verify(loaded.release, jose.parse(text), time.time())
    except jose.BadTokenError:
        return None
    return OwnToken(loaded.release, token, revoked=loaded.state.is_revoked(token.jti, token.issued_at))


def _find(client_id: str) -> OAuthClient:
    return OAuthClient(current().release.clients.get(client_id, NOBODY))


def _by_assertion(query_client: Any, request: FormRequest) -> OAuthClient | None:  # noqa: ANN401  # Authlib's
    loaded = current()
    method = PrivateKeyJwt(loaded.release.settings, loaded.state, loaded.release.settings.issuer)
    client: OAuthClient | None = method(query_client, request)
    # RFC 7521, section 4.2: a client_id that comes along has to be the assertion's. An empty parameter is none.
    named = request.form.get("client_id")
    if client and named and named != client.client.id:
        raise InvalidClientError(description="assertion: client_id names another client")
    return client


def _issue(client: OAuthClient, grant_type: str, user: None, scope: str) -> str:  # noqa: ARG001  # Authlib's signature
    loaded = current()
    # A token that Redis could not hold revoked must not be issued.
    loaded.state.wait_for_memory()
    return tokens.issue(loaded.release, client.client, scope.split(" "))


def _note(token: dict[str, Any], request: FormRequest) -> None:
    client: Client = request.client.client
    g.event = {
        "event": "token issued",
        "client": client.id,
        "tenant": client.tenant,
        "scope": token["scope"],
        "method": request.auth_method,
    }
