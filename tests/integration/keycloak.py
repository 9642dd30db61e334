"""A real Keycloak: on this machine, by TLS, at an address that containers reach.

    with start_keycloak(directory) as keycloak:
        keycloak.wait()
        keycloak.add_realm(realm)

It takes some seconds to start; `start_keycloak` does not wait, so that something else can be made meanwhile.
"""

import secrets
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from support.certificates import issue
from support.ports import free_port
from tests.integration.bridge import bridge
from tests.integration.realms import Realm, client_documents, realm_document, scope_documents
from tests.keycloak_install import environment, keycloak_directory

ADMIN = "admin"
KEY_PROVIDER = "org.keycloak.keys.KeyProvider"
START_SECONDS, STOP_SECONDS = 180, 20
# Its first requests compile what they use.
ANSWER_SECONDS = 120
LAST_LINES = 20


@dataclass
class _Session:
    """The administrator's token, and until when it is used."""

    token: str = field(default="", repr=False)
    until: float = float("-inf")


@dataclass(frozen=True, kw_only=True)
class Keycloak:
    """A Keycloak that was started: its URL, the file with the CA of that URL, and its administrator."""

    url: str
    ca_file: Path
    log: Path
    process: "subprocess.Popen[bytes]"
    http: httpx.Client
    password: str = field(repr=False)
    _session: _Session = field(default_factory=_Session)

    def wait(self) -> None:
        """Wait until it answers. Fails with the last lines of its log."""
        deadline = time.monotonic() + START_SECONDS
        last = "no answer"
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                last = str(self.http.get("/realms/master").status_code)
            except httpx.HTTPError as problem:
                last = repr(problem)
            if last == "200":
                return
            time.sleep(0.3)
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        code = self.process.poll()
        what = f"not up within {START_SECONDS} s" if code is None else f"ended with exit code {code}"
        raise AssertionError("\n".join([f"Keycloak: {what}; last: {last}; its log:", *lines]))

    def issuer(self, realm: str) -> str:
        """Return the issuer that a realm's tokens name."""
        return f"{self.url}/realms/{realm}"

    def add_realm(self, realm: Realm) -> None:
        """Make a realm, with its scopes, clients and people."""
        for path, documents in (
            ("", [realm_document(realm)]),
            (f"/{realm.name}/client-scopes", scope_documents()),
            (f"/{realm.name}/clients", client_documents(realm)),
        ):
            for document in documents:
                self._admin("POST", path, document)

    def token(self, realm: Realm, service: str) -> str:
        """Return an access token of a service, by client credentials."""
        answer = self.http.post(
            f"/realms/{realm.name}/protocol/openid-connect/token",
            data={
                "grant_type": "client_credentials",
                "client_id": service,
                "client_secret": realm.service(service).secret,
            },
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def signing_key(self, realm: str) -> str:
        """Return the kid by which the realm signs now."""
        return str(self._admin("GET", f"/{realm}/keys").json()["active"]["RS256"])

    def add_signing_key(self, realm: str) -> str:
        """Let the realm sign by a new key; return its kid. The key before stays published."""
        before = self.signing_key(realm)
        component = {
            "name": f"rsa-{secrets.token_hex(3)}",
            "providerId": "rsa-generated",
            "providerType": KEY_PROVIDER,
            "config": {
                "priority": [str(int(time.time()))],
                "enabled": ["true"],
                "active": ["true"],
                "algorithm": ["RS256"],
            },
        }
        self._admin("POST", f"/{realm}/components", component)
        now = self.signing_key(realm)
        assert now != before
        return now

    def disable_key(self, realm: str, kid: str) -> None:
        """Take a key away from the realm: it is published no more."""
        listed = self._admin("GET", f"/{realm}/keys").json()["keys"]
        (provider,) = {one["providerId"] for one in listed if one.get("kid") == kid}
        path = f"/{realm}/components/{provider}"
        component = self._admin("GET", path).json()
        component["config"] |= {"enabled": ["false"], "active": ["false"]}
        self._admin("PUT", path, component)

    def _admin(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        if time.monotonic() > self._session.until:
            form = {"grant_type": "password", "client_id": "admin-cli", "username": ADMIN}
            told = self.http.post(
                "/realms/master/protocol/openid-connect/token", data={**form, "password": self.password}
            )
            assert told.status_code == 200, told.text
            self._session.token = told.json()["access_token"]
            self._session.until = time.monotonic() + told.json()["expires_in"] / 2
        headers = {"Authorization": f"Bearer {self._session.token}"}
        answer = self.http.request(method, f"/admin/realms{path}", json=body, headers=headers)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer


@contextmanager
def start_keycloak(scratch: Path) -> Iterator[Keycloak]:
    """Start Keycloak and give it before it is up; end it afterwards. `scratch` gets its keys and its log."""
    home = keycloak_directory()
    address = bridge()
    port = free_port(address)
    ca = issue(ca=True, name="Keycloak's own CA")
    own = issue([address], issuer=ca, name="keycloak")
    for file, text in (("ca.pem", ca.pem), ("own.pem", own.pem), ("own-key.pem", own.key_pem)):
        (scratch / file).write_text(text, encoding="utf-8")
    (scratch / "own-key.pem").chmod(0o600)
    url, password, log = f"https://{address}:{port}", secrets.token_urlsafe(24), scratch / "keycloak.log"
    command = [
        # When the tests are killed, it goes with them.
        *(("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()),
        *("bash", str(home / "bin" / "kc.sh"), "start", "--optimized", "--cache=local"),
        *(f"--hostname={url}", f"--http-host={address}", f"--https-port={port}"),
        f"--https-certificate-file={scratch / 'own.pem'}",
        f"--https-certificate-key-file={scratch / 'own-key.pem'}",
    ]
    given = {"KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN, "KC_BOOTSTRAP_ADMIN_PASSWORD": password}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment() | given
        )
    trust = ssl.create_default_context(cafile=str(scratch / "ca.pem"))
    try:
        with httpx.Client(base_url=url, verify=trust, timeout=ANSWER_SECONDS) as http:
            yield Keycloak(
                url=url, ca_file=scratch / "ca.pem", log=log, process=process, http=http, password=password
            )
    finally:
        process.terminate()
        try:
            process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
