"""Replicas of the edge and of the gateway, each with an address and a share of a core of its own."""

import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import images
from bench.load import LoadError, command, parse
from bench.proxies import Proxy
from bench.rig import LOAD_GRACE_SECONDS, Rig
from dify_kit.errors import KitError
from dify_kit.talk import say

PERIOD = 100_000  # µs, of the kernel's scheduler


@dataclass(frozen=True, kw_only=True)
class Group:
    """Replicas that share the work of one part: names of their containers, and the URL of each."""

    part: str
    urls: Mapping[str, str]
    headers: Mapping[str, str]
    script: str

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self.urls)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """One turn of a group: requests/s of all replicas, and their CPU time in µs for each request."""

    rate: float
    cpu: float


class ReplicaRig(Rig):
    """A rig whose replicas are reached over its network, as pods are, and not over 127.0.0.1."""

    def start_replica(self, proxy: Proxy) -> None:
        """Start a replica of the edge under its name; it may wait for the names of others."""
        self._join(
            proxy.name,
            self._create(
                proxy.name,
                proxy.image or images.nginx(),
                list(proxy.command),
                proxy.files,
                user=proxy.user,
                memory=proxy.memory,
                hostname=proxy.name,
                tmpfs=dict(proxy.tmpfs) | {"/tmp": ""},  # noqa: S108  # the container's own
                network_mode="none",
            ),
        )

    def start_service(
        self, name: str, image: str, run: Sequence[str], files: Mapping[str, str], *, user: str
    ) -> None:
        """Start a service of which replicas are measured, under its name."""
        self._join(name, self._create(name, image, list(run), files, user=user, network_mode="none"))

    def _join(self, name: str, container: Any) -> None:  # noqa: ANN401  # docker's models are not typed
        self.client.networks.get("none").disconnect(container)
        self.network.connect(container, aliases=[name])
        container.start()

    def address(self) -> str:
        """Return the address of the upstream, which is also that of the load."""
        container = self.containers["upstream"]
        container.reload()
        return str(container.attrs["NetworkSettings"]["Networks"][self.name]["IPAddress"])

    def share(self, names: Sequence[str], cores: float) -> None:
        """Limit containers to a share of a core each."""
        for name in names:
            self.containers[name].update(cpu_period=PERIOD, cpu_quota=int(PERIOD * cores))

    def take(self, group: Group, *, seconds: int) -> Taken:
        """Load all replicas of a group at the same time. Raises KitError when one answers anything but success."""
        before = sum(self.cpu_seconds(name) for name in group.urls)
        with ThreadPoolExecutor(group.count) as pool:
            loads = list(pool.map(lambda url: self._load(group, url, seconds), group.urls.values()))
        used = sum(self.cpu_seconds(name) for name in group.urls) - before
        requests = sum(requests for requests, _ in loads)
        return Taken(rate=sum(rate for _, rate in loads), cpu=used * 1_000_000 / requests)

    def _load(self, group: Group, url: str, seconds: int) -> tuple[int, float]:
        done = self.run(
            "load",
            command(url, seconds=seconds, headers=group.headers, script=group.script),
            seconds=seconds + LOAD_GRACE_SECONDS,
        )
        try:
            load = parse(done.stdout)
        except LoadError as problem:
            raise KitError(f"{url}: {problem} {done.stderr.strip()}") from None
        if load.refused or load.socket_errors or not load.requests:
            raise KitError(
                f"{url}: of {load.requests} requests {load.refused} were refused, {load.socket_errors} failed in "
                "the socket",
                "figures of refusals are worth nothing: the log of the container has the reason",
            )
        return load.requests, load.rate


@contextmanager
def replica_rig(kind: str, aliases: Sequence[str], *, load_files: Mapping[str, str]) -> Iterator[ReplicaRig]:
    """Yield a rig with an upstream and the load, and no replica yet; everything is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="dify-kit-bench-") as scratch:
        made = ReplicaRig(
            name=f"dify-bench-{secrets.token_hex(3)}", scratch=Path(scratch), load_files=load_files
        )
        try:
            say(f"starting replicas as {made.name}-*")
            made.start_upstream(kind, aliases)
            yield made
        finally:
            made.remove()
