"""The api of an instance, asked directly and not through the edge: what it says is what Dify would say."""

import base64
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

import httpx
import yaml

from infra.settings.apps import app_file
from support.stacks import Stack
from tests.integration.small_dify import SmallDify

FILE_UPLOAD = {
    "enabled": True,
    "allowed_file_types": ["image", "document"],
    "allowed_file_extensions": [],
    "allowed_file_upload_methods": ["local_file", "remote_url"],
    "number_limits": 3,
}
# Dify imports an app of an older DSL, and says that it is one.
IMPORTED = {"completed", "completed-with-warnings"}


def chat_dsl(name: str = "echo-chat") -> str:
    """Return a chat app that echoes its input."""
    document = yaml.safe_load(app_file("echo-chat").read_text(encoding="utf-8"))
    document["app"] |= {"name": name, "description": name}
    document["workflow"]["features"] |= {"opening_statement": "hi", "file_upload": FILE_UPLOAD}
    return yaml.safe_dump(document)


@dataclass(kw_only=True)
class Instance:
    """A claimed instance, signed in to its console."""

    url: str
    email: str
    password: str = field(repr=False)
    release: str
    console: httpx.Client = field(init=False)
    api: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        """Sign in."""
        # A connection that is kept between tests may be closed by the edge while a request is sent on it.
        fresh = httpx.Limits(max_keepalive_connections=0)
        self.api = httpx.Client(base_url=self.url, timeout=120, limits=fresh)
        self.console = httpx.Client(base_url=f"{self.url}/console/api", timeout=120, limits=fresh)
        self.sign_in()

    def sign_in(self) -> None:
        """Sign in as the admin, and carry the CSRF token from now on."""
        password = base64.b64encode(self.password.encode()).decode()
        answer = self.console.post("/login", json={"email": self.email, "password": password})
        assert answer.status_code == httpx.codes.OK, answer.text
        self.console.headers["X-CSRF-Token"] = answer.cookies["csrf_token"]

    def imports(self, dsl: str) -> dict[str, Any]:
        """Send a DSL and return what is said about it."""
        body: dict[str, Any] = self.console.post(
            "/apps/imports", json={"mode": "yaml-content", "yaml_content": dsl}
        ).json()
        return body

    def import_app(self, dsl: str) -> str:
        """Import and publish an app; return its id."""
        body = self.imports(dsl)
        assert body["status"] in IMPORTED, body
        app_id = str(body["app_id"])
        assert self.console.post(f"/apps/{app_id}/workflows/publish", json={}).is_success
        return app_id

    def key(self, app_id: str) -> str:
        """Make a key for an app."""
        answer = self.console.post(f"/apps/{app_id}/api-keys")
        assert answer.status_code == httpx.codes.CREATED, answer.text
        return str(answer.json()["token"])

    def chat_app(self) -> tuple[str, str]:
        """Return id and key of a new chat app."""
        app_id = self.import_app(chat_dsl(f"contract-{secrets.token_hex(3)}"))
        return app_id, self.key(app_id)

    def ask(self, key: str, query: str, **more: Any) -> httpx.Response:
        """Send a chat message."""
        body = {"inputs": {}, "query": query, "user": "contract", "response_mode": "blocking"} | more
        return self.api.post("/v1/chat-messages", json=body, headers={"Authorization": f"Bearer {key}"})


@dataclass(kw_only=True)
class StackInstance(Instance):
    """The instance of a deployed stack."""

    stack: Stack


def of_stack(stack: Stack) -> StackInstance:
    """Find the api of a stack and sign in to it."""
    networks = stack.container("api").attrs["NetworkSettings"]["Networks"]
    address = networks[f"dify-{stack.name}-app"]["IPAddress"]
    config = json.loads(stack.pulumi("config", "--json", "--show-secrets").stdout)
    return StackInstance(
        url=f"http://{address}:5001",
        email=str(config["dify:adminEmail"]["value"]),
        password=str(config["dify:adminPassword"]["value"]),
        release=stack.release,
        stack=stack,
    )


def of_small_dify(dify: SmallDify) -> Instance:
    """Claim a small Dify and sign in to it."""
    console = dify.console()
    console.claim("admin", dify.init_password)
    return Instance(url=dify.address(), email=console.email, password=dify.password, release=dify.release)
