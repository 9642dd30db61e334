"""An OAuth client of the environment: gets tokens by client credentials and never shows them."""

import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from smoke_tests.client import Answer, Client
from smoke_tests.masking import Redactor, Secret

OK = 200


@dataclass(frozen=True, kw_only=True)
class Access:
    """What a client needs: the issuer's origin, its id and its secret."""

    issuer: str
    client: str
    secret: Secret


@dataclass(kw_only=True)
class TokenClient:
    """A client that requests and revokes tokens."""

    access: Access
    client: Client = field(repr=False)
    redact: Redactor = field(repr=False)

    def request(self, *, client: str = "", secret: Secret | None = None, scope: str = "") -> Answer:
        """Request a token by form, as this client or as another. A token in the answer is masked from then on."""
        answer = self._post(
            "token",
            {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {}),
            client=client,
            secret=secret,
        )
        if answer.status == OK:
            self.redact.learn([_token_in(answer)])
        return answer

    def token(self, scope: str = "") -> Secret:
        """Return a new token."""
        answer = self.request(scope=scope)
        assert answer.status == OK, answer
        return Secret(_token_in(answer))

    def revoke(self, token: Secret) -> Answer:
        """Revoke a token."""
        return self._post("revoke", {"token": token.reveal()})

    def foreign_token(self) -> Secret:
        """Return a token that is valid except for its signature, which is made with an unknown key."""
        now = int(time.time())
        key = ECKey.generate_key("P-256", auto_kid=True)
        claims: dict[str, Any] = {
            "iss": self.access.issuer,
            "aud": self.access.issuer,
            "sub": self.access.client,
            "client_id": self.access.client,
            "iat": now,
            "exp": now + 600,
            "jti": secrets.token_urlsafe(16),
            "scope": "chat",
            "tenant": "canary",
        }
        header = {"alg": "ES256", "typ": "at+jwt", "kid": key.kid}
        return Secret(jwt.encode(header, claims, key))

    def _post(
        self, endpoint: str, form: dict[str, str], *, client: str = "", secret: Secret | None = None
    ) -> Answer:
        credentials = {
            "client_id": client or self.access.client,
            "client_secret": (secret or self.access.secret).reveal(),
        }
        return self.client.ask("POST", f"{self.access.issuer}/oauth/{endpoint}", form=form | credentials)


def bearer(token: Secret) -> dict[str, str]:
    """Return the Authorization header for a token."""
    return {"Authorization": f"Bearer {token.reveal()}"}


def _token_in(answer: Answer) -> str:
    """Return the token of an answer from its bytes: known tokens are masked in its text."""
    body = json.loads(b"".join(chunk for _, chunk in answer.arrivals))
    return str(body.get("access_token") or "")
