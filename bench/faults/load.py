"""The clients of the faults bench: each sends one kind of request, one after the other, and checks what is kept."""

import contextlib
import hashlib
import json
import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import httpx

from dify_kit.errors import KitError
from support.stacks import Stack

TENANT, CLIENT, CALLER, MODEL = "acme", "acme-bot", "web", "gpt-4.1"
PAUSE_SECONDS = 0.25
"""Between an answer and the next request of a sender."""
TIMEOUT_SECONDS = 120
# So many answers in a row end the wait for recovery.
WELL_AFTER = 12
PAGE = 100
GOOD = frozenset({httpx.codes.OK, httpx.codes.CREATED})
CHAT = {"inputs": {}, "response_mode": "blocking", "auto_generate_name": False}
# Longer than a page of PostgreSQL has room for two of: a full volume shows at the next one.
QUERY_BYTES = 4000
UPLOAD_BYTES = 16 << 10


@dataclass
class Sent:
    """The requests of one way: when each was sent (s, monotonic), when it ended, and its status, 0 for none."""

    calls: list[tuple[float, float, int]] = field(default_factory=list)

    def failures(self) -> Counter[int]:
        """How many failed, by status."""
        return Counter(status for _, _, status in self.calls if status not in GOOD)

    def recovered_after(self, moment: float) -> float:
        """Return the seconds from a moment to the end of the last request that failed; 0 where none did."""
        return max((ended - moment for _, ended, status in self.calls if status not in GOOD), default=0.0)

    def slowest(self) -> float:
        """Return the longest answer that was given, in seconds."""
        return max((ended - sent for sent, ended, status in self.calls if status in GOOD), default=0.0)

    def well(self) -> bool:
        """Whether the last answers are good."""
        last = [status for _, _, status in self.calls[-WELL_AFTER:]]
        return len(last) == WELL_AFTER and set(last) <= GOOD


@dataclass(frozen=True, kw_only=True)
class Access:
    """What clients have of a stack: the key of an app, a client's secret and token, a key of the LLM proxy."""

    app_key: str = field(repr=False)
    client_secret: str = field(repr=False)
    token: str = field(repr=False)
    llm_key: str = field(repr=False)


@dataclass(kw_only=True)
class Load:
    """Requests of each kind while faults come and go, and what was answered."""

    stack: Stack
    access: Access
    user: str = field(default_factory=lambda: f"faults-{uuid.uuid4().hex[:8]}")
    sent: Mapping[str, Sent] = field(default_factory=lambda: {one: Sent() for one in WAYS})
    # Conversations with their question, files by their SHA-256, and tokens.
    chats: list[tuple[str, str]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    counted_before: int = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Send while the block runs."""
        self.counted_before = self._counted()
        over = threading.Event()
        senders = [threading.Thread(target=self._repeat, args=(way, over), daemon=True) for way in self.sent]
        for sender in senders:
            sender.start()
        try:
            yield
        finally:
            over.set()
            for sender in senders:
                sender.join(timeout=TIMEOUT_SECONDS + 60)

    def well(self) -> bool:
        """Whether the last answers of each kind are good."""
        return all(one.well() for one in self.sent.values())

    def _repeat(self, way: str, over: threading.Event) -> None:
        send, calls = WAYS[way], self.sent[way].calls
        with self._http() as http:
            while not over.wait(PAUSE_SECONDS):
                began = time.monotonic()
                try:
                    status = send(self, http)
                except httpx.HTTPError:
                    status = 0
                calls.append((began, time.monotonic(), status))

    def _http(self) -> httpx.Client:
        return httpx.Client(base_url=self.stack.url, timeout=TIMEOUT_SECONDS)

    def chat(self, http: httpx.Client) -> int:
        """Ask the app a question by its key."""
        query = f"{self.user} {len(self.sent['chats'].calls)} ".ljust(QUERY_BYTES, "x")
        answer = http.post(
            "/v1/chat-messages", headers=self._by_key(), json={**CHAT, "query": query, "user": self.user}
        )
        if answer.status_code in GOOD:
            self.chats.append((str(answer.json()["conversation_id"]), query))
        return answer.status_code

    def call(self, http: httpx.Client) -> int:
        """Ask for the app's name by an access token."""
        return http.get("/v1/info", headers=_bearer(self.access.token)).status_code

    def token(self, http: httpx.Client) -> int:
        """Take a token."""
        form = {
            "grant_type": "client_credentials",
            "client_id": CLIENT,
            "client_secret": self.access.client_secret,
        }
        answer = http.post("/oauth/token", data=form)
        if answer.status_code in GOOD:
            self.tokens.append(str(answer.json()["access_token"]))
        return answer.status_code

    def upload(self, http: httpx.Client) -> int:
        """Send a file that no other one is like."""
        content = os.urandom(UPLOAD_BYTES)
        files = {"file": ("fault.png", content, "image/png")}
        answer = http.post("/v1/files/upload", headers=self._by_key(), data={"user": self.user}, files=files)
        if answer.status_code in GOOD:
            self.files.append(hashlib.sha256(content).hexdigest())
        return answer.status_code

    def completion(self, http: httpx.Client) -> int:
        """Ask a model through the LLM proxy."""
        asked = {"model": MODEL, "messages": [{"role": "user", "content": "What jumps?"}]}
        return http.post(
            "/llm/v1/chat/completions", headers=_bearer(self.access.llm_key), json=asked
        ).status_code

    def _by_key(self) -> dict[str, str]:
        return _bearer(self.access.app_key)

    def lost(self) -> dict[str, int]:
        """Return how much of what was answered is not there afterwards, by kind; nothing that is there."""
        found = {
            "chats": self._lost_chats(),
            "files": self._lost_files(),
            "tokens": self._lost_tokens(),
        }
        return {what: number for what, number in found.items() if number}

    def _lost_chats(self) -> int:
        missing = 0
        with self._http() as http:
            for conversation, query in self.chats:
                asked = {"conversation_id": conversation, "user": self.user, "limit": str(PAGE)}
                found = http.get("/v1/messages", headers=self._by_key(), params=asked)
                stored = found.json()["data"] if found.status_code in GOOD else []
                missing += query not in {one["query"] for one in stored}
        return missing

    def _lost_files(self) -> int:
        code, output = self.stack.container("api").exec_run(
            ["sh", "-c", "cd /app/api/storage && find . -type f -exec sha256sum {} +"]
        )
        if code:
            raise KitError(f"the files of {self.stack.name} cannot be read: {output.decode()[-500:]}")
        stored = {line[:64] for line in output.decode().splitlines()}
        return sum(one not in stored for one in self.files)

    def _lost_tokens(self) -> int:
        with self._http() as http:
            return sum(
                http.get("/v1/info", headers=_bearer(one)).status_code not in GOOD for one in self.tokens
            )

    def uncounted(self) -> int:
        """Return how many of the answers of models the usage of their caller lacks."""
        answered = sum(status in GOOD for _, _, status in self.sent["LLM calls"].calls)
        return max(0, answered - (self._counted() - self.counted_before))

    def _counted(self) -> int:
        """Return the calls that `dify-kit usage` has of the caller."""
        done = self.stack.kit("usage", "--stack", self.stack.name, "--json")
        if done.code:
            raise KitError(f"`dify-kit usage` failed:\n{done.output[-3000:]}")
        months = json.loads(done.stdout)
        return sum(
            int(numbers["requests"])
            for month in months.values()
            for caller, models in month.items()
            if caller == f"key:{CALLER}"
            for numbers in models.values()
        )


def _bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


WAYS: Mapping[str, Callable[[Load, httpx.Client], int]] = {
    "chats": Load.chat,
    "OAuth calls": Load.call,
    "new tokens": Load.token,
    "uploads": Load.upload,
    "LLM calls": Load.completion,
}
"""What is sent, by the name that the table has for it."""
