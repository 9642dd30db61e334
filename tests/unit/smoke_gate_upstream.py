"""The small Dify with a gate in front of its console."""

import secrets
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

from tests.unit.smoke_upstream import Handler, Refused

CLOSED = {"code": "unauthorized", "message": "Authentication is required.", "status": 401}


class GateHandler(Handler):
    """One request to an environment with a gate."""

    dify = True

    def route(self, body: dict[str, Any]) -> None:
        path = urlsplit(self.path).path
        if path == "/oauth2/start":
            self.start()
        elif path == "/oauth2/callback":
            made = {"Set-Cookie": "dify_gate=x; Path=/"} if self.wrong("any-state") else {}
            self.send(302 if made else 400, "", made)
        elif self.inside(path) and not self.passes(path):
            self.close()
        else:
            super().route(body)

    def inside(self, path: str) -> bool:
        outside = ("/v1", "/mcp", "/triggers", *(() if self.wrong("files-inside") else ("/files",)))
        return not path.startswith(outside) and not self.refused_before(path)

    def refused_before(self, path: str) -> bool:
        """Return whether the edge refuses a request before the gate: schemas, and sockets of other origins."""
        other_origin = path == "/socket.io/" and self.headers.get("Origin") != self.upstream.url
        return other_origin or "swagger" in unquote(path).lower() or path.endswith("/_catalog")

    def passes(self, path: str) -> bool:
        return (
            (self.wrong("api-open") and path.startswith("/console/api"))
            or (self.wrong("pages-open") and not path.startswith(("/console/api", "/api")))
            or (self.wrong("any-cookie") and "dify_gate=" in self.headers.get("Cookie", ""))
            or (self.wrong("believes-headers") and "X-Auth-Request-User" in self.headers)
        )

    def close(self) -> None:
        self.dify = False
        page = "text/html" in self.headers.get("Accept", "") or self.wrong("leads-calls")
        if page and not self.wrong("no-redirect"):
            target = "/" if self.wrong("forgets-the-page") else self.path
            raise Refused(302, "", Location=f"/oauth2/start?rd={target}")
        raise Refused(401, "<html>" if self.wrong("html-401") else CLOSED)

    def start(self) -> None:
        redirect = "https://elsewhere.example" if self.wrong("callback-elsewhere") else self.upstream.url
        asked = {
            "response_type": "code",
            "client_id": "dify",
            "redirect_uri": f"{redirect}/oauth2/callback",
            "scope": "openid email",
            "state": "1" if self.wrong("short-state") else secrets.token_urlsafe(24),
            "nonce": secrets.token_urlsafe(24),
            "code_challenge": secrets.token_urlsafe(32),
            "code_challenge_method": "S256",
        }
        if self.wrong("no-pkce"):
            del asked["code_challenge"]
        if self.wrong("provider-away"):
            raise Refused(503, "<html>")
        flags = "Path=/; SameSite=Lax" + ("" if self.wrong("script-reads-cookie") else "; HttpOnly")
        headers = {
            "Location": f"https://id.example.com/auth?{urlencode(asked)}",
            "Set-Cookie": f"dify_gate_ab12cd34=x; {flags}",
        }
        self.send(302, "", headers)

    def send_header(self, keyword: str, value: str) -> None:
        # The small Dify names its version on each answer; the gate does not.
        if self.dify or keyword != "X-Version":
            super().send_header(keyword, value)

    def answer(self) -> None:
        self.dify = True
        super().answer()
