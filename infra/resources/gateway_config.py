"""The gateway's configuration as a resource: a change goes live in the running container, or not at all.

Written beside the running configuration, switched, and believed only once every worker names the new one. What the
gateway refuses is taken back, and the error has its own words.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
from pulumi import dynamic

from infra.catalogue import ports
from infra.resources.release_container import ContainerError, ReleaseContainer
from infra.settings.oauth_clients import ClientsFileError, read_clients

# The gateway looks for a change twice a second; reading 10,000 clients with keys takes a second on a busy machine.
LIVE_SECONDS = 30.0
# A refusal is a matter of reading, and every worker has tried by then.
REFUSAL_SECONDS = 4.0
# A recreated container starts with what its volume has.
ANSWER_SECONDS = 10.0
CLIENTS = "clients.json"
_READ = ("config.json", "tenants.json", CLIENTS, "keys.json")


class GatewayRefusalError(Exception):
    """The configuration did not go live; the one before it still runs."""


@dataclass(frozen=True, kw_only=True)
class Health:
    """What the gateway says about itself: the release of every worker, and what is wrong."""

    revisions: tuple[str, ...] = ()
    workers: int = 0
    problems: tuple[str, ...] = ()

    def serves(self, revision: str, workers: int) -> bool:
        """Tell whether all workers serve a release and no other."""
        return self.revisions == (revision,) and self.workers >= workers

    @property
    def refusals(self) -> tuple[str, ...]:
        """What it could not read in the files of a release."""
        return tuple(one for one in self.problems if one.startswith(tuple(f"{name}:" for name in _READ)))


class GatewayContainer(ReleaseContainer):
    """The gateway's container, by its id."""

    def health(self) -> Health:
        """Ask the gateway, from inside its container; it also answers while it cannot work."""
        address = f"http://127.0.0.1:{ports.GATEWAY_INTERNAL}/healthz"
        told = self._run(["curl", "-sS", "--max-time", "8", address])
        try:
            body = json.loads(told.output)
            return Health(
                revisions=tuple(body["revisions"]),
                workers=int(body["workers"]),
                problems=tuple(str(one) for one in body["problems"]),
            )
        except (ValueError, KeyError, TypeError):
            return Health()

    def forget(self) -> None:
        """Remove the link to what runs."""
        self._must("taking the configuration back", ["rm", "-f", f"{self._directory}/current"], root=True)


def revision_of(props: Mapping[str, Any]) -> str:
    """Return the name of a configuration: a digest of everything in it, the clients by the digest of their file."""
    told = {key: props.get(key) for key in ("files", "clients_digest", "own_clients")}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def _clients(props: Mapping[str, Any]) -> str:
    """Return clients.json: the clients of the file, which are in no state, and the program's own."""
    if not props["clients_file"]:
        return json.dumps({"clients": props["own_clients"]})
    path = Path(props["clients_file"])
    try:
        found = read_clients(path)
    except ClientsFileError as problem:
        raise GatewayRefusalError(f"{path}: {problem}") from None
    if found.digest != props["clients_digest"]:
        raise GatewayRefusalError(
            f"{path} was changed while this ran, and the new content was not checked; run the same command again"
        )
    return json.dumps({"clients": {**found.clients, **props["own_clients"]}})


def go_live(gateway: GatewayContainer, props: Mapping[str, Any]) -> str:
    """Bring a configuration into the container and return its name.

    Raises GatewayRefusalError when the gateway does not take it; then the one before is back.
    """
    revision, workers = revision_of(props), int(props["workers"])
    before = gateway.current()
    if before == revision and _wait(gateway, revision, workers, ANSWER_SECONDS):
        return revision
    files = {**props["files"], CLIENTS: _clients(props)}
    # Pulumi's numbers are floats, and no uid is one.
    if before != revision:
        gateway.write(revision, {}, files, int(props["owner"]))
        gateway.switch(revision)
    if _wait(gateway, revision, workers, LIVE_SECONDS):
        # An old release holds keys and hashes that should be gone.
        gateway.keep([revision])
        return revision
    health = gateway.health()
    if before and before != revision:
        gateway.switch(before)
        _wait(gateway, before, workers, LIVE_SECONDS, recovering=True)
        gateway.discard(revision)
    elif not before:
        gateway.forget()
        gateway.discard(revision)
    if not health.problems:
        raise ContainerError(
            f"the gateway does not answer with its configuration {LIVE_SECONDS:.0f} s after it got it; last log "
            f"lines:\n{gateway.last_logs()}"
        )
    stays = ", and the old one stays" if before and before != revision else ""
    said = "; ".join(health.refusals or health.problems)
    raise GatewayRefusalError(f"the OAuth gateway rejects the new configuration{stays}: {said}")


def _wait(
    gateway: GatewayContainer, revision: str, workers: int, seconds: float, *, recovering: bool = False
) -> bool:
    """Wait until all workers serve a release; no longer than it takes them to refuse it.

    `recovering` from another one that they refused, they still say so for a moment.
    """
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        health = gateway.health()
        if health.serves(revision, workers) and not (recovering and health.refusals):
            return True
        if not recovering and passed > REFUSAL_SECONDS and health.refusals:
            return False
        time.sleep(0.1)
    return False


class GatewayConfigProvider(dynamic.ResourceProvider):
    """Pickled by reference: this module must keep its name."""

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Give a new container its configuration."""
        revision = go_live(_container(props), props)
        return dynamic.CreateResult(props["container"][:12], {**props, "revision": revision})

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.DiffResult:
        """Another configuration is an update; another container gets everything anew. Paths do not count."""
        moved = _olds.get("container") != _news.get("container")
        changed = moved or _olds.get("revision") != revision_of(_news)
        return dynamic.DiffResult(
            changes=changed, replaces=["container"] if moved else [], delete_before_replace=True
        )

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.UpdateResult:
        """Let the new configuration go live."""
        # Without a file there are to be no clients: OAuth was turned off, and the gate needs none.
        if _olds.get("clients_digest") and not _news["clients_digest"] and _news["clients_file"]:
            raise GatewayRefusalError(
                f"{_news['clients_file']} is gone, and with it every client; restore it from a backup. If all of them "
                'are to go, write {"clients": {}} into it'
            )
        return dynamic.UpdateResult({**_news, "revision": go_live(_container(_news), _news)})

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        """Report the release that runs, and the configuration gone with its container."""
        gateway = _container(props)
        if gateway.status() != "running":
            return dynamic.ReadResult("", {})
        running = gateway.health().revisions
        same = running == (props.get("revision"),)
        return dynamic.ReadResult(id_, props if same else {**props, "revision": ",".join(running) or "none"})

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """Nothing: the configuration goes with the container and its volume."""


def _container(props: Mapping[str, Any]) -> GatewayContainer:
    return GatewayContainer(props["container"], props["directory"])


class GatewayConfig(dynamic.Resource):
    """The configuration that the gateway runs in `container` (an id).

    Inputs: `files` (a secret) maps the name of a file in the release to its text, all but clients.json;
    `clients_file` is the path of the clients' file (empty without OAuth) and `clients_digest` what was checked of it
    (empty: there is none), so that 10,000 clients stay out of the state; `own_clients` are entries that the program
    adds. `directory` is where the releases lie in the container, `owner` the uid that alone reads them, `workers` how
    many processes have to take them. Output: `revision`.
    """

    revision: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        container: pulumi.Input[str],
        directory: str,
        files: pulumi.Input[Mapping[str, str]],
        clients_file: str,
        clients_digest: str,
        own_clients: Mapping[str, pulumi.Input[Mapping[str, Any]]],
        owner: int,
        workers: int,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "container": container,
            "directory": directory,
            "files": files,
            "clients_file": clients_file,
            "clients_digest": clients_digest,
            "own_clients": dict(own_clients),
            "owner": owner,
            "workers": workers,
            "revision": None,
        }
        super().__init__(GatewayConfigProvider(), name, props, opts)
