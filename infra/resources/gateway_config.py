"""The gateway's configuration as a resource.

Every worker of the gateway reads the current revision by itself. It counts as live once all of them name it.
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
from infra.resources.configuration import Change, ConfigurationProvider, ConfigurationRejectedError, Props
from infra.resources.revision_container import ContainerError, RevisionContainer
from infra.settings.oauth_clients import ClientsFileError, read_clients

# The gateway looks for a change twice a second; reading 10,000 clients with keys takes a second, and longer while other
# services start.
LIVE_SECONDS = 120.0
# By then every worker has read the files, and refuses them or not.
REFUSAL_SECONDS = 4.0
ANSWER_SECONDS = 10.0
CLIENTS = "clients.json"
_READ = ("config.json", "tenants.json", CLIENTS, "keys.json")


@dataclass(frozen=True, kw_only=True)
class Health:
    """The health report of the gateway: the revision of every worker, and the problems."""

    revisions: tuple[str, ...] = ()
    workers: int = 0
    problems: tuple[str, ...] = ()

    def serves(self, revision: str, workers: int) -> bool:
        """Tell whether all workers serve one revision and no other."""
        return self.revisions == (revision,) and self.workers >= workers

    @property
    def refusals(self) -> tuple[str, ...]:
        """The problems with the files of a revision."""
        return tuple(one for one in self.problems if one.startswith(tuple(f"{name}:" for name in _READ)))


class GatewayContainer(RevisionContainer):
    """The gateway's container, by its reference."""

    def health(self) -> Health:
        """Read the report from inside the container; the gateway answers also while it cannot serve."""
        address = f"http://127.0.0.1:{ports.GATEWAY_INTERNAL}/healthz"
        ran = self._run(["curl", "-sS", "--max-time", "8", address])
        try:
            body = json.loads(ran.output)
            return Health(
                revisions=tuple(body["revisions"]),
                workers=int(body["workers"]),
                problems=tuple(str(one) for one in body["problems"]),
            )
        except (ValueError, KeyError, TypeError):
            return Health()


def revision_of(props: Mapping[str, Any]) -> str:
    """Return the name of a configuration: a digest of everything in it, the clients by the digest of their file."""
    parts = {key: props.get(key) for key in ("files", "clients_digest", "own_clients")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def digest_of(files: Mapping[str, str]) -> str:
    """Return the name of a configuration whose files are all known."""
    return hashlib.sha256(json.dumps(dict(files), sort_keys=True).encode()).hexdigest()[:12]


def all_files(props: Mapping[str, Any]) -> dict[str, str]:
    """Return all files of a revision from the inputs of `GatewayConfig`. Raises ConfigurationRejectedError."""
    return {**props["files"], CLIENTS: _clients(props)}


def _clients(props: Mapping[str, Any]) -> str:
    """Return clients.json: the clients of the file, which are in no state, and the program's own."""
    if not props["clients_file"]:
        return json.dumps({"clients": props["own_clients"]})
    path = Path(props["clients_file"])
    try:
        found = read_clients(path)
    except ClientsFileError as problem:
        raise ConfigurationRejectedError(f"{path}: {problem}") from None
    if found.digest != props["clients_digest"]:
        raise ConfigurationRejectedError(
            f"{path} was changed while this ran, and the new content was not checked; run the same command again"
        )
    return json.dumps({"clients": {**found.clients, **props["own_clients"]}})


class _Change(Change):
    """A revision of the gateway's configuration. Every worker reads it by itself, and reports what it refuses."""

    def __init__(self, gateway: GatewayContainer, props: Mapping[str, Any]) -> None:
        super().__init__(gateway, revision_of(props))
        self.answer_seconds, self.live_seconds = ANSWER_SECONDS, LIVE_SECONDS
        self._gateway = gateway
        self._props = props
        self._workers = int(props["workers"])

    def write(self) -> None:
        # Pulumi's numbers are floats, and no uid is one.
        self._gateway.write(self.revision, {}, all_files(self._props), int(self._props["owner"]))

    def serves(self, revision: str, seconds: float, *, recovering: bool = False) -> bool:
        """Wait until all workers serve a revision; no longer than it takes them to refuse it."""
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            health = self._gateway.health()
            # Workers that refused another revision report that for a moment.
            if health.serves(revision, self._workers) and not (recovering and health.refusals):
                return True
            if not recovering and passed > REFUSAL_SECONDS and health.refusals:
                return False
            time.sleep(0.1)
        return False

    def failure(self) -> Exception:
        health = self._gateway.health()
        if not health.problems:
            return ContainerError(
                f"the gateway does not answer with its configuration {LIVE_SECONDS:.0f} s after it got it; last log "
                f"lines:\n{self._gateway.last_logs()}"
            )
        stays = ", and the old one stays" if self.replaces else ""
        reason = "; ".join(health.refusals or health.problems)
        return ConfigurationRejectedError(f"the OAuth gateway rejects the new configuration{stays}: {reason}")


def go_live(gateway: GatewayContainer, props: Mapping[str, Any]) -> str:
    """Bring a configuration into the container and return its revision. Raises what `Change.go_live` raises."""
    return _Change(gateway, props).go_live()


class GatewayConfigProvider(ConfigurationProvider):
    """Pickled by reference: this module must keep its name."""

    def bring(self, props: dict[str, Any]) -> dict[str, Any]:
        """Let the gateway's configuration go live."""
        return {**props, "revision": go_live(_container(props), props)}

    def changed(self, olds: Props, news: Props) -> bool:
        """Compare what the configuration consists of; paths do not count."""
        return bool(olds.get("revision") != revision_of(news))

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.UpdateResult:
        """Let the new configuration go live."""
        # Without a path there are to be no clients: OAuth was turned off, and the gate needs none.
        if _olds.get("clients_digest") and not _news["clients_digest"] and _news["clients_file"]:
            raise ConfigurationRejectedError(
                f"{_news['clients_file']} is gone, and with it every client; restore it from a backup. If all of them "
                'are to go, write {"clients": {}} into it'
            )
        return super().update(_id, _olds, _news)

    def container(self, props: Props) -> GatewayContainer:
        """Return the gateway's container."""
        return _container(props)

    def running(self, container: GatewayContainer, props: Props) -> str:
        """Return the revision that the workers serve; several, separated by commas, when they differ."""
        del props
        return ",".join(container.health().revisions)


def _container(props: Mapping[str, Any]) -> GatewayContainer:
    return GatewayContainer(props["container"], props["directory"])


class GatewayConfig(dynamic.Resource):
    """The configuration that the gateway runs in `container` (a reference).

    Inputs: `files` (a secret) maps the name of a file in the revision to its text, all but clients.json;
    `clients_file` is the path of the clients' file (empty without OAuth) and `clients_digest` what was checked of it
    (empty: there is none), so that 10,000 clients stay out of the state; `own_clients` are entries that the program
    adds. `directory` is where the revisions are in the container, `owner` the uid that alone reads them, `workers` how
    many processes serve them. Output: `revision`.
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
