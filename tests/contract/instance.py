"""The api of a deployed stack, asked directly and not through the edge: what it says is what Dify would say."""

import base64
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

import httpx
import yaml

from infra.apps import app_file
from tests.integration.stacks import Stack

FILE_UPLOAD = {
    "enabled": True,
    "allowed_file_types": ["image", "document"],
    "allowed_file_extensions": [],
    "allowed_file_upload_methods": ["local_file", "remote_url"],
    "number_limits": 3,
}


def chat_dsl(name: str = "echo-chat") -> str:
    """Return the chat app that the recorded answers were made with."""
    document = yaml.safe_load(app_file("echo-chat").read_text(encoding="utf-8"))
    document["app"] |= {"name": name, "description": name}
    document["workflow"]["features"] |= {"opening_statement": "hi", "file_upload": FILE_UPLOAD}
    return yaml.safe_dump(document)


def workflow_dsl() -> str:
    """Return the workflow app of the recorded answers: one input, given back."""
    document = yaml.safe_load(app_file("echo-chat").read_text(encoding="utf-8"))
    document["app"] |= {"mode": "workflow", "name": "echo-workflow"}
    start, answer = document["workflow"]["graph"]["nodes"]
    start["data"]["variables"] = [
        {"variable": "query", "label": "query", "type": "paragraph", "required": True}
    ]
    answer["id"] = "end"
    outputs = [{"variable": "out", "value_selector": ["start", "query"]}]
    answer["data"] = {"type": "end", "title": "end", "outputs": outputs}
    document["workflow"]["graph"]["edges"][0] |= {"target": "end"}
    return yaml.safe_dump(document)


@dataclass
class Instance:
    """A claimed instance, signed in to its console."""

    stack: Stack
    console: httpx.Client = field(init=False)
    api: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        """Find the api's address and sign in."""
        networks = self.stack.container("api").attrs["NetworkSettings"]["Networks"]
        address = networks[f"dify-{self.stack.name}-app"]["IPAddress"]
        self.api = httpx.Client(base_url=f"http://{address}:5001", timeout=30)
        self.console = httpx.Client(base_url=f"http://{address}:5001/console/api", timeout=30)
        self.sign_in()

    def setting(self, key: str) -> str:
        """Return a setting of the stack, secrets too."""
        config = json.loads(self.stack.pulumi("config", "--json", "--show-secrets").stdout)
        return str(config[f"dify:{key}"]["value"])

    def sign_in(self) -> None:
        """Sign in as the admin, and carry the CSRF token from now on."""
        password = base64.b64encode(self.setting("adminPassword").encode()).decode()
        answer = self.console.post("/login", json={"email": self.setting("adminEmail"), "password": password})
        assert answer.status_code == httpx.codes.OK, answer.text
        self.console.headers["X-CSRF-Token"] = answer.cookies["csrf_token"]

    def import_app(self, dsl: str) -> str:
        """Import and publish an app; return its id."""
        told = self.console.post("/apps/imports", json={"mode": "yaml-content", "yaml_content": dsl}).json()
        assert told["status"] == "completed", told
        app_id = str(told["app_id"])
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
