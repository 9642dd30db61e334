"""An OpenID provider for tests, on a port of this machine: real HTTP, and ID tokens as right or wrong as wanted."""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from cryptography.hazmat.primitives.asymmetric import rsa

from support.tokens import b64, compact, public_jwk, rs256

CLIENT, SECRET = "dify-console", "a secret: 50% of +/& it"
KEY = rsa.generate_private_key(65537, 2048)
OTHER_KEY = rsa.generate_private_key(65537, 2048)


class Provider:
    """The provider. Tests change its fields before a sign-in."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.claims: dict[str, Any] = {}
        self.header: dict[str, Any] = {}
        self.key = KEY
        self.sign: Callable[[bytes], bytes] = lambda data: rs256(self.key, data)
        self.document: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {}
        self.token_status = 200
        self.without_id_token = False
        # code -> parameters of the authorization request
        self.codes: dict[str, dict[str, str]] = {}
        self.token_requests: list[dict[str, str]] = []

    def authorize(self, address: str) -> str:
        """Do what a browser and a person do at the provider; return the address they are sent back to."""
        parts = urlsplit(address)
        assert address.startswith(f"{self.url}/authorize?")
        asked = dict(parse_qsl(parts.query))
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        return f"{asked['redirect_uri']}?code={code}&state={asked['state']}&iss={self.url}"

    def discovery(self) -> dict[str, Any]:
        """Return the discovery document."""
        names = ("authorization", "token", "userinfo", "end_session")
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/keys",
            **{f"{name}_endpoint": f"{self.url}/{path}" for name, path in zip(names, PATHS, strict=True)},
            # What a gateway that believed this would take.
            "id_token_signing_alg_values_supported": ["none", "HS256", "RS256"],
            **self.document,
        }

    def id_token(self, nonce: str, access_token: str) -> str:
        """Return an ID token."""
        now = int(time.time())
        half = hashlib.sha256(access_token.encode()).digest()[:16]
        claims = {
            "iss": self.url,
            "sub": "person-1",
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "nonce": nonce,
            "email": "ann@example.com",
            "email_verified": True,
            "at_hash": b64(half),
            **self.claims,
        }
        header = {"alg": "RS256", "kid": "first", **self.header}
        kept = [{k: v for k, v in part.items() if v is not ...} for part in (header, claims)]
        signed = ".".join(b64(compact(part)) for part in kept)
        return f"{signed}.{b64(self.sign(signed.encode()))}"

    def exchange(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """Answer at the token endpoint as RFC 6749 and RFC 7636 have it."""
        self.token_requests.append({**form, "authorization": authorization})
        if self.token_status != 200:
            return self.token_status, {"error": "server_error"}
        scheme, _, encoded = authorization.partition(" ")
        identity, _, secret = base64.b64decode(encoded).decode().partition(":")
        form_id, form_secret = form.get("client_id"), form.get("client_secret")
        known = (identity, secret) if scheme == "Basic" else (form_id, form_secret)
        if known != (CLIENT, SECRET):
            return 401, {"error": "invalid_client"}
        asked = self.codes.pop(form.get("code", ""), None)
        verifier = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if (
            asked is None
            or form.get("redirect_uri") != asked["redirect_uri"]
            or b64(verifier) != asked["code_challenge"]
        ):
            return 400, {"error": "invalid_grant"}
        access_token = secrets.token_urlsafe(16)
        issued = {"access_token": access_token, "token_type": "Bearer", "expires_in": 60}
        return 200, issued if self.without_id_token else {
            **issued,
            "id_token": self.id_token(asked["nonce"], access_token),
        }


PATHS = ("authorize", "token", "userinfo", "end-session")


@contextmanager
def running(address: str = "127.0.0.1") -> Iterator[Provider]:
    """Start a provider at an address of this machine, and end it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/.well-known/openid-configuration":
                self._send(200, provider.discovery())
            elif self.path == "/keys":
                self._send(200, {"keys": [public_jwk(KEY, "first", use="sig", alg="RS256")]})
            elif self.path == "/userinfo":
                self._send(200, provider.userinfo)
            else:
                self._send(404, {})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            self._send(*provider.exchange(form, self.headers.get("Authorization", "")))

        def _send(self, status: int, told: dict[str, Any]) -> None:
            data = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer((address, 0), Handler)
    provider = Provider(f"http://{address}:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
