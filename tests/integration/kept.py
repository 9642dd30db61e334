"""What a stack must have after anything that was done to it: messages, files, a key, a client with its token."""

import hashlib
from dataclasses import dataclass, field

import httpx

from support.stacks import Stack

TENANT, CLIENT = "acme", "acme-bot"
USER = "u-1"
CHAT = {"inputs": {}, "user": USER, "response_mode": "blocking", "auto_generate_name": False}
UPLOAD = bytes(range(256)) * 2048
# A client of one tenant, whose tokens reach one app.
SETTINGS = ("oauth.enabled=true", f"oauth.tenants.{TENANT}.app=echo-chat")


@dataclass
class Kept:
    """A stack with data of each kind, and what that was."""

    stack: Stack
    secret: str
    key: str = ""
    token: str = ""
    conversation: str = ""
    messages: list[tuple[str, str, str]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    # The sum of a table, where one was filled.
    rows: str = ""

    @classmethod
    def of(cls, stack: Stack) -> "Kept":
        """Deploy a stack that was initialised with SETTINGS, and fill it."""
        added = stack.kit(
            "client", "add", CLIENT, "--tenant", TENANT, "--scope", "chat", "--stack", stack.name
        )
        assert added.code == 0, added.output
        stack.up()
        one = cls(stack=stack, secret=added.stdout.strip())
        one.begin()
        return one

    def begin(self) -> None:
        """Make the first conversation, and a file."""
        self.key = self.stack.outputs(secrets_too=True)["appKeys"]["echo-chat"]
        self.token = self.new_token()
        with self._client() as http:
            said = http.post("/v1/chat-messages", json={**CHAT, "query": "first"}).json()
            self.conversation = said["conversation_id"]
            files = {"file": ("drill.png", UPLOAD, "image/png")}
            uploaded = http.post("/v1/files/upload", data={"user": USER}, files=files)
            assert uploaded.status_code == 201, uploaded.text
        self.files = self.stored()
        self.add("second")

    def add(self, query: str) -> None:
        """Add a message to the conversation, and note what there is."""
        with self._client() as http:
            more = {**CHAT, "query": query, "conversation_id": self.conversation}
            assert http.post("/v1/chat-messages", json=more).status_code == 200
        self.messages = self.now()

    def now(self) -> list[tuple[str, str, str]]:
        """Return the messages of the conversation."""
        with self._client() as http:
            asked = {"user": USER, "conversation_id": self.conversation, "limit": "100"}
            answer = http.get("/v1/messages", params=asked)
        assert answer.status_code == 200, answer.text
        return [(one["id"], one["query"], one["answer"]) for one in answer.json()["data"]]

    def serves(self) -> None:
        """Demand that everything is there and works, with the keys of before."""
        assert self.now() == self.messages
        found = self.stored()
        assert {path: found.get(path) for path in self.files} == self.files
        assert hashlib.sha256(UPLOAD).hexdigest() in found.values()
        assert self.new_token()
        headers = {"Authorization": f"Bearer {self.token}"}
        assert httpx.get(f"{self.stack.url}/v1/info", headers=headers, timeout=60).status_code == 200

    def check(self, release: str) -> None:
        """Demand that everything is there, on a release that is deployed to its end."""
        self.serves()
        outputs = self.stack.outputs(secrets_too=True)
        assert outputs["appKeys"]["echo-chat"] == self.key
        assert outputs["release"] == release
        assert self.stack.steps() == {}

    def _client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.stack.url, headers=headers, timeout=60)

    def new_token(self) -> str:
        """Return a token that the client gets now."""
        form = {"grant_type": "client_credentials", "client_id": CLIENT, "client_secret": self.secret}
        answer = httpx.post(f"{self.stack.url}/oauth/token", data=form, timeout=60)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def stored(self) -> dict[str, str]:
        """Return the SHA-256 of every file of the storage volume but the marker and the kit's notes."""
        script = "cd /app/api/storage && find . -type f ! -path './.dify-kit*' -exec sha256sum {} +"
        code, output = self.stack.container("api").exec_run(["sh", "-c", script])
        assert code == 0, output.decode()
        return {line[66:]: line[:64] for line in output.decode().splitlines()}
