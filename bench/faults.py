"""bench/faults: what clients see while a service is killed, frozen or cut off, and whether anything is lost."""

import contextlib
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import httpx

from bench import machine
from bench.report import Report, Table
from dify_kit.errors import KitError
from dify_kit.talk import say
from infra.platforms.images import local_name
from support.stacks import SMALLEST, Stack

TENANT, CLIENT = "acme", "acme-bot"
PAUSE_SECONDS = 0.25
"""Between an answer and the next request of a sender."""
STEADY_SECONDS = 5.0
FROZEN_SECONDS = 10.0
"""How long a service is paused, or cut off from a network."""
RECOVERY_SECONDS = 240.0
# So many answers in a row end the wait for recovery.
WELL_AFTER = 12
PAGE = 100
Docker = Any  # docker's models are not typed
CHAT = {"inputs": {}, "response_mode": "blocking", "auto_generate_name": False}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is done to a service: `kind` is killed, paused, or the network that it is cut off from."""

    service: str
    kind: str


KILLED, PAUSED = "killed", "paused"
FAULTS = (
    *(
        Fault(service=one, kind=KILLED)
        for one in ("db-postgres", "redis", "worker", "api", "gateway", "nginx")
    ),
    *(Fault(service=one, kind=PAUSED) for one in ("db-postgres", "redis", "worker", "api", "gateway")),
    Fault(service="db-postgres", kind="data"),
    Fault(service="redis", kind="data"),
)


@dataclass
class Sent:
    """The requests of one way: when each was sent (s, monotonic), when it ended, and its status, 0 for none."""

    calls: list[tuple[float, float, int]] = field(default_factory=list)

    def failures(self) -> Counter[int]:
        """How many failed, by status."""
        return Counter(status for _, _, status in self.calls if status != httpx.codes.OK)

    def recovered_after(self, moment: float) -> float:
        """Return the seconds from a moment to the end of the last request that failed; 0 where none did."""
        return max(
            (ended - moment for _, ended, status in self.calls if status != httpx.codes.OK), default=0.0
        )

    def slowest(self) -> float:
        """Return the longest answer that was given, in seconds."""
        return max(
            (ended - sent for sent, ended, status in self.calls if status == httpx.codes.OK), default=0.0
        )

    def well(self) -> bool:
        """Whether the last answers are good."""
        last = [status for _, _, status in self.calls[-WELL_AFTER:]]
        return len(last) == WELL_AFTER and set(last) == {httpx.codes.OK}


@dataclass(kw_only=True)
class Load:
    """Chats by an API key and calls by an access token, each one after the other, while faults come and go."""

    url: str
    key: str
    token: str
    user: str = field(default_factory=lambda: f"faults-{uuid.uuid4().hex[:8]}")
    chats: Sent = field(default_factory=Sent)
    calls: Sent = field(default_factory=Sent)
    answered: list[tuple[str, str]] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Send while the block runs."""
        over = threading.Event()
        senders = [
            threading.Thread(target=self._repeat, args=(one, sent, over), daemon=True)
            for one, sent in ((self._chat, self.chats), (self._call, self.calls))
        ]
        for sender in senders:
            sender.start()
        try:
            yield
        finally:
            over.set()
            for sender in senders:
                sender.join(timeout=180)

    def _repeat(self, send: Callable[[httpx.Client], int], sent: Sent, over: threading.Event) -> None:
        with httpx.Client(base_url=self.url, timeout=120) as http:
            while not over.wait(PAUSE_SECONDS):
                began = time.monotonic()
                try:
                    status = send(http)
                except httpx.HTTPError:
                    status = 0
                sent.calls.append((began, time.monotonic(), status))

    def _chat(self, http: httpx.Client) -> int:
        query = f"{self.user} {len(self.chats.calls)}"
        answer = http.post(
            "/v1/chat-messages",
            headers={"Authorization": f"Bearer {self.key}"},
            json={**CHAT, "query": query, "user": self.user},
        )
        if answer.status_code == httpx.codes.OK:
            self.answered.append((str(answer.json()["conversation_id"]), query))
        return answer.status_code

    def _call(self, http: httpx.Client) -> int:
        return http.get("/v1/info", headers={"Authorization": f"Bearer {self.token}"}).status_code

    def lost(self) -> int:
        """Return how many of the chats that were answered are not stored."""
        missing = 0
        with httpx.Client(
            base_url=self.url, timeout=120, headers={"Authorization": f"Bearer {self.key}"}
        ) as http:
            for conversation, query in self.answered:
                found = http.get(
                    "/v1/messages", params={"conversation_id": conversation, "user": self.user, "limit": PAGE}
                )
                stored = found.json()["data"] if found.status_code == httpx.codes.OK else []
                missing += query not in {one["query"] for one in stored}
        return missing


def _kill(client: Docker, container: Docker) -> None:
    """Send SIGKILL to the service's main process, as the kernel does when memory runs out.

    `docker kill` would count as a stop by hand, after which the engine starts nothing.
    """
    helper = client.containers.run(
        local_name("busybox"),
        ["kill", "-9", str(container.attrs["State"]["Pid"])],
        pid_mode="host",
        network_mode="none",
        labels={"dify-kit.bench": "faults"},
        detach=True,
    )
    try:
        if helper.wait(timeout=60)["StatusCode"]:
            raise KitError(f"{container.name} was not killed: {helper.logs().decode()[-300:]}")
    finally:
        helper.remove(force=True)


@contextlib.contextmanager
def _cut_off(client: Docker, container: Docker, network: str) -> Iterator[None]:
    """Take a container off a network while the block runs, and put it back with its names."""
    before = container.attrs["NetworkSettings"]["Networks"][network]
    there = client.networks.get(network)
    there.disconnect(container)
    try:
        yield
    finally:
        there.connect(container, aliases=before.get("Aliases"))


def _strike(stack: Stack, fault: Fault) -> None:
    """Do it, and undo what does not end by itself."""
    client = docker.from_env(timeout=120)
    container = client.containers.get(f"dify-{stack.name}-{fault.service}")
    if fault.kind == KILLED:
        _kill(client, container)
    elif fault.kind == PAUSED:
        container.pause()
        try:
            time.sleep(FROZEN_SECONDS)
        finally:
            container.unpause()
    else:
        with _cut_off(client, container, f"dify-{stack.name}-{fault.kind}"):
            time.sleep(FROZEN_SECONDS)


def _suffered(stack: Stack, fault: Fault, key: str, token: str) -> dict[str, Any]:
    """Return what clients saw of one fault."""
    load = Load(url=stack.url, key=key, token=token)
    with load.running():
        time.sleep(STEADY_SECONDS)
        moment = time.monotonic()
        _strike(stack, fault)
        ends = time.monotonic() + RECOVERY_SECONDS
        while not (load.chats.well() and load.calls.well() and stack.well(fault.service)):
            if time.monotonic() > ends:
                raise KitError(
                    f"{fault.service} {fault.kind}: after {RECOVERY_SECONDS:.0f} s clients still fail: chats "
                    f"{load.chats.calls[-3:]}, calls {load.calls.calls[-3:]}",
                    "see the logs of the stack's services",
                )
            time.sleep(1)
    return {
        "fault": named(fault),
        "chats": len(load.chats.calls),
        "chats failed": sum(load.chats.failures().values()),
        "calls": len(load.calls.calls),
        "calls failed": sum(load.calls.failures().values()),
        "answers": shown({"chat": load.chats.failures(), "OAuth": load.calls.failures()}),
        "seconds": max(load.chats.recovered_after(moment), load.calls.recovered_after(moment)),
        "slowest": max(load.chats.slowest(), load.calls.slowest()),
        "lost": load.lost(),
    }


def named(fault: Fault) -> str:
    """Return a fault in words."""
    if fault.kind == KILLED:
        return f"{fault.service} killed"
    if fault.kind == PAUSED:
        return f"{fault.service} frozen for {FROZEN_SECONDS:.0f} s"
    return f"{fault.service} cut off from network {fault.kind} for {FROZEN_SECONDS:.0f} s"


def shown(failures: Mapping[str, Counter[int]]) -> str:
    """Return how failed requests were answered, as text."""
    parts = [
        f"{way}: {number} x {status or 'no answer'}"
        for way, counted in failures.items()
        for status, number in sorted(counted.items())
    ]
    return ", ".join(parts) or "none"


def _token(stack: Stack, secret: str) -> str:
    form = {"grant_type": "client_credentials", "client_id": CLIENT, "client_secret": secret}
    answer = httpx.post(f"{stack.url}/oauth/token", data=form, timeout=60)
    answer.raise_for_status()
    return str(answer.json()["access_token"])


def _done(stack: Stack, *arguments: str) -> str:
    """Run `dify-kit` and return what it printed. Raises KitError."""
    done = stack.kit(*arguments, "--stack", stack.name)
    if done.code:
        raise KitError(f"`dify-kit {' '.join(arguments)}` failed:\n{done.output[-3000:]}")
    return done.stdout.strip()


def run(command: str, *, faults: Sequence[Fault] = FAULTS) -> Report:
    """Deploy a stack of its own, strike it with each fault under load, remove it, and return the report."""
    facts = machine.facts()
    raw = []
    with tempfile.TemporaryDirectory(prefix="dify-kit-bench-") as home:
        stack = Stack(home=Path(home), release=SMALLEST)
        try:
            say(f"deploying stack {stack.name} on port {stack.port}; it is removed at the end")
            created = stack.init(set=("oauth.enabled=true", f"oauth.tenants.{TENANT}.app=echo-chat"))
            if created.code:
                raise KitError(f"`dify-kit init` failed:\n{created.output[-3000:]}")
            secret = _done(stack, "client", "add", CLIENT, "--tenant", TENANT, "--scope", "chat")
            _done(stack, "up")
            key = stack.outputs(secrets_too=True)["appKeys"]["echo-chat"]
            token = _token(stack, secret)
            for fault in faults:
                found = _suffered(stack, fault, key, token)
                say(
                    f"  {found['fault']}: {found['chats failed']} of {found['chats']} chats and "
                    f"{found['calls failed']} of {found['calls']} calls failed, {found['lost']} lost"
                )
                raw.append(found)
        finally:
            stack.remove()
    return report_of(command, raw, facts=facts)


def report_of(command: str, raw: list[dict[str, Any]], *, facts: Mapping[str, str]) -> Report:
    """Return the report of the faults."""
    lost = sum(one["lost"] for one in raw)
    return Report(
        name="faults",
        title="Faults under load",
        command=command,
        machine=facts,
        parameters={
            "senders": 2,
            "pause between a sender's requests in seconds": PAUSE_SECONDS,
            "release": SMALLEST,
            "images": "stand-ins; PostgreSQL, Redis, nginx and the gateway are real",
        },
        tables=(
            Table(
                title="What clients saw",
                columns=(
                    "fault",
                    "chats failed",
                    "OAuth calls failed",
                    "answers",
                    "seconds to the last failure",
                    "slowest good answer in seconds",
                    "answered and lost",
                ),
                rows=tuple(
                    (
                        one["fault"],
                        f"{one['chats failed']} of {one['chats']}",
                        f"{one['calls failed']} of {one['calls']}",
                        one["answers"],
                        float(one["seconds"]),
                        float(one["slowest"]),
                        one["lost"],
                    )
                    for one in raw
                ),
            ),
        ),
        notes=(
            "promised: nothing that was answered is lost, and every fault ends without a hand",
            "a killed service gets SIGKILL, and the engine starts it again; a frozen one keeps its connections",
            "one sender chats by an API key, the other calls `/v1/info` by an access token; each waits for its answer",
        ),
        raw=raw,
        problem=f"{lost} answered chat(s) are lost" if lost else "",
        summary={
            one["fault"]: {"failed": one["chats failed"] + one["calls failed"], "seconds": one["seconds"]}
            for one in raw
        },
    )
