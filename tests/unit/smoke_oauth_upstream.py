"""The small Dify with OAuth in front of it: tokens, scopes and revocation."""

import secrets
import time
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from tests.unit.smoke_upstream import KEY, Handler, Refused

CLIENT = "canary"
SECRET = "dks_UnitTestSecret4mZ8xQ2pLUnitTestSecret4mZ8xQ"
SCOPES = ("chat", "conversations")
SIGNING = ECKey.generate_key("P-256", auto_kid=True)
INVALID = {
    "error": "invalid_token",
    "error_description": "The access token is invalid or has expired",
}


@dataclass(frozen=True, kw_only=True)
class Scoped:
    """A route and the scope that opens it; empty for none."""

    path: str
    scope: str


ROUTES = (
    Scoped(path="/v1/datasets", scope=""),
    Scoped(path="/v1/conversations", scope="conversations"),
    Scoped(path="/v1", scope="chat"),
)


class OAuthHandler(Handler):
    """One request to an environment with OAuth."""

    revoked: ClassVar[set[str]]
    granted: ClassVar[tuple[str, ...]] = SCOPES

    def body(self) -> dict[str, Any]:
        if self.headers.get("Content-Type", "").startswith("application/x-www-form-urlencoded"):
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            return dict(parse_qsl(text, keep_blank_values=True))
        return super().body()

    def route(self, body: dict[str, Any]) -> None:
        path = urlsplit(self.path).path
        if path == "/oauth/token":
            self.token(body)
        elif path == "/oauth/revoke":
            self.client(body)
            self.revoked.add(body["token"])
            self.send(200, {})
        elif path == "/verify" and self.wrong("open-verify"):
            self.send(200, "", {"X-Auth-Tenant": "canary", "X-Auth-Upstream": KEY})
        else:
            super().route(body)

    def client(self, form: dict[str, Any]) -> None:
        known = form["client_id"] == CLIENT
        if known and (form["client_secret"] == SECRET or self.wrong("any-secret")):
            return
        description = "The client is unknown" if not known and self.wrong("reveals-clients") else "Refused"
        raise Refused(401, {"error": "invalid_client", "error_description": description})

    def token(self, form: dict[str, Any]) -> None:
        assert form["grant_type"] == "client_credentials"
        self.client(form)
        scopes = form.get("scope", " ".join(self.granted))
        if not set(scopes.split()) <= set(self.granted) and not self.wrong("any-scope"):
            raise Refused(400, {"error": "invalid_scope"})
        claims = {"exp": int(time.time()) + 600, "scope": scopes, "jti": secrets.token_hex(8)}
        token = jwt.encode({"alg": "ES256", "kid": SIGNING.kid}, claims, SIGNING)
        cached = {} if self.wrong("cached") else {"Cache-Control": "no-store"}
        issued = {"access_token": token, "token_type": "Bearer", "expires_in": 600, "scope": scopes}
        self.send(200, issued, cached)

    def authenticate(self) -> None:
        token = self.headers.get("Authorization", "").strip().partition(" ")[2]
        if token.count(".") != 2:
            super().authenticate()
            return
        scopes = self.scopes(token)
        path = urlsplit(self.path).path
        needed = next(route.scope for route in ROUTES if path.startswith(route.path))
        if needed not in scopes and not self.wrong("no-scopes"):
            raise Refused(403, {"error": "insufficient_scope", "error_description": "", "scope": needed})

    def unauthorized(self, message: str) -> None:
        # The knowledge API accepts no app key; a token is checked first.
        if urlsplit(self.path).path == "/v1/datasets":
            self.authenticate()
        super().unauthorized(message)

    def scopes(self, token: str) -> list[str]:
        if self.wrong("any-token"):
            return ["chat"]
        try:
            claims = jwt.decode(token, SIGNING, algorithms=["ES256"]).claims
        except (JoseError, ValueError):
            claims = {}
        forgotten = token in self.revoked and not self.wrong("keeps-revoked")
        if not claims or forgotten:
            challenge = 'Bearer error="invalid_token"' if not self.wrong("no-token-challenge") else "Bearer"
            raise Refused(401, INVALID, **{"WWW-Authenticate": challenge})
        return str(claims["scope"]).split()
