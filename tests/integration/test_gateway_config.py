"""How a configuration goes live in the gateway: the kit's own image, description and volume, a real Redis."""

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import pytest

from dify_gateway import client_secrets
from infra.catalogue.container_paths import GATEWAY_DIRECTORY, GATEWAY_UID
from infra.resources.configuration import ConfigurationRejectedError
from infra.resources.gateway_config import (
    GatewayConfigProvider,
    GatewayContainer,
    revision_of,
)
from infra.services import gateway as gateway_service
from infra.services.specs import spec as spec_of
from infra.settings.oauth import documents
from infra.settings.secrets import signing_keys
from support.configuration import settings
from support.images import image_of
from support.stacks import unique, wait_until
from tests.integration.containers import printed

Docker = Any  # docker's models are not typed
PASSWORD = secrets.token_hex(16)
APP_KEYS = {"acme": f"app-{secrets.token_hex(12)}", "canary": f"app-{secrets.token_hex(12)}"}
SECRET = client_secrets.generate_secret()
CLIENT = {"tenant": "acme", "scopes": ["chat"], "secrets": [client_secrets.hash_secret(SECRET)]}


class Installation:
    """A gateway and its Redis in a network of their own, and the inputs of its configuration."""

    def __init__(self, directory: Path) -> None:
        self.client: Docker = docker.from_env(timeout=60)
        self.name = unique("gateway-config")
        self.clients_file = directory / "clients.json"
        self.network = self.client.networks.create(self.name, internal=True)
        redis = self.client.containers.create(
            image_of("redis"),
            command=["redis-server", "--appendonly", "yes", "--requirepass", PASSWORD],
            name=f"{self.name}-redis",
        )
        self.network.connect(redis, aliases=["redis"])
        redis.start()
        self.redis = redis
        self.signing_keys = signing_keys()
        self.start()

    def start(self) -> None:
        """Start the gateway's container as the stack does."""
        spec = spec_of("gateway", found := settings(), found.dify)
        self.gateway: Docker = self.client.containers.create(
            image_of(spec.image),
            name=f"{self.name}-gateway",
            network=self.name,
            user=spec.user,
            environment=dict(spec.environment),
            read_only=spec.read_only,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            volumes={self.name: {"bind": spec.mounts[0].path, "mode": "rw"}},
            mem_limit=f"{spec.limits.memory}m",
            dns_opt=list(spec.dns_options),
        )
        self.gateway.start()

    def clients(self, clients: Mapping[str, Any]) -> None:
        """Write the file of clients."""
        self.clients_file.write_text(json.dumps({"clients": clients}))
        self.clients_file.chmod(0o600)

    def props(self, **changes: str) -> dict[str, Any]:
        """Return the inputs as the program gives them, with some files changed."""
        given = str(self.clients_file) if self.clients_file.exists() else ""
        oauth = settings(
            {
                "oauth": {
                    "enabled": True,
                    "tenants": {"acme": {"app": "echo-chat"}},
                    "clientsFile": given,
                }
            }
        ).oauth
        assert oauth
        redis = {"url": f"redis://:{PASSWORD}@redis:6379/3", "seal_key": PASSWORD * 2}
        files = documents(oauth, redis=redis, app_keys=APP_KEYS)
        return {
            "container": self.gateway.id,
            "directory": GATEWAY_DIRECTORY,
            "files": {**files, "keys.json": self.signing_keys, **changes},
            "clients_file": str(self.clients_file),
            "clients_digest": oauth.clients_digest,
            "own_clients": {},
            # Pulumi's numbers are floats.
            "owner": float(GATEWAY_UID),
            "workers": float(gateway_service.WORKERS),
        }

    @property
    def container(self) -> GatewayContainer:
        """The gateway's container as the provider sees it."""
        return GatewayContainer(self.gateway.id, GATEWAY_DIRECTORY)

    def token(self, client: str = "bot") -> int:
        """Ask for a token and return the status."""
        code = self.gateway.exec_run(
            [
                "curl",
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "--data",
                f"grant_type=client_credentials&client_id={client}&client_secret={SECRET}",
                "http://127.0.0.1:8090/oauth/token",
            ]
        ).output
        return int(code)

    def releases(self) -> list[str]:
        """Return what lies on the volume."""
        return sorted(printed(self.gateway, ["ls", f"{GATEWAY_DIRECTORY}/releases"]).split())

    def remove(self) -> None:
        """Remove everything."""
        for container in self.client.containers.list(all=True, filters={"name": self.name}):
            container.remove(force=True, v=True)
        self.network.remove()
        self.client.volumes.get(self.name).remove(force=True)
        self.client.close()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A running gateway; each test leaves it with the client `bot`."""
    made = Installation(tmp_path_factory.mktemp("clients"))
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture
def state(installation: Installation) -> dict[str, Any]:
    """What Pulumi would remember: a configuration that is live."""
    installation.clients({"bot": CLIENT})
    made = GatewayConfigProvider().create(installation.props())
    assert made.outs is not None
    return dict(made.outs)


def test_container_without_a_configuration_waits_for_one(installation: Installation) -> None:
    installation.clients({"bot": CLIENT})
    props = installation.props()
    wait_until(lambda: installation.container.health().workers == 2, seconds=120, what="two workers")
    assert installation.container.current() == ""

    made = GatewayConfigProvider().create(props)

    assert made.outs is not None
    assert made.outs["revision"] == revision_of(props)
    assert installation.token() == 200
    assert installation.releases() == [revision_of(props)]


def test_files_are_closed_and_its_own_user_cannot_change_them(
    installation: Installation, state: dict[str, Any]
) -> None:
    directory = f"{GATEWAY_DIRECTORY}/releases/{state['revision']}"
    output = printed(installation.gateway, ["sh", "-c", f"stat -c '%a %u' {directory}/*"])

    assert set(output.splitlines()) == {f"400 {GATEWAY_UID}"}
    for command in (f"touch {directory}/x", f"rm {GATEWAY_DIRECTORY}/current", f"rm -rf {directory}"):
        assert installation.gateway.exec_run(["sh", "-c", command]).exit_code != 0
    assert installation.token() == 200


def test_same_configuration_is_no_change(installation: Installation, state: dict[str, Any]) -> None:
    provider = GatewayConfigProvider()

    assert not provider.diff("id", state, installation.props()).changes
    read = provider.read("id", state)
    assert read.outs == state
    assert read.id == "id"


def test_removed_client_is_refused_as_soon_as_the_update_ends(
    installation: Installation, state: dict[str, Any]
) -> None:
    assert installation.token() == 200
    installation.clients({"other": CLIENT})
    props = installation.props()
    assert GatewayConfigProvider().diff("id", state, props).changes

    done = GatewayConfigProvider().update("id", state, props)

    assert done.outs is not None
    assert [installation.token() for _ in range(6)] == [401] * 6
    assert installation.token("other") == 200
    assert installation.releases() == [done.outs["revision"]], "no old hash lies about"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "config.json",
            '{"issuer": "nowhere", "redis": {"url": "redis://redis/3"}}',
            "config.json: issuer must be",
        ),
        ("keys.json", '{"keys": []}', "keys.json: no key can sign"),
        ("tenants.json", '{"tenants": {}}', "clients.bot.tenant names acme, which tenants.json lacks"),
    ],
)
def test_what_the_gateway_refuses_never_goes_live(
    installation: Installation, state: dict[str, Any], file: str, text: str, message: str
) -> None:
    with pytest.raises(ConfigurationRejectedError, match="the old one stays") as caught:
        GatewayConfigProvider().update("id", state, installation.props(**{file: text}))

    assert message in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert installation.container.current() == state["revision"]
    health = installation.container.health()
    assert health.serves(state["revision"], 2)
    assert health.problems == ()
    assert installation.releases() == [state["revision"]]
    assert installation.token() == 200


def test_clients_that_changed_after_they_were_checked_do_not_go_live(
    installation: Installation, state: dict[str, Any]
) -> None:
    props = installation.props() | {"clients_digest": "0" * 64}

    with pytest.raises(ConfigurationRejectedError, match="was changed while this ran"):
        GatewayConfigProvider().update("id", state, props)

    assert installation.container.current() == state["revision"]


def test_lost_file_does_not_lock_everybody_out(installation: Installation, state: dict[str, Any]) -> None:
    installation.clients_file.unlink()

    with pytest.raises(ConfigurationRejectedError, match="is gone, and with it every client"):
        GatewayConfigProvider().update("id", state, installation.props())

    assert installation.token() == 200


def test_recreated_container_comes_back_with_what_ran_last(
    installation: Installation, state: dict[str, Any]
) -> None:
    installation.gateway.remove(force=True)
    assert GatewayConfigProvider().read("id", state).id == ""
    installation.start()
    wait_until(lambda: installation.token() == 200, seconds=120, what="a token before any push")

    props = installation.props()
    assert GatewayConfigProvider().diff("id", state, props).replaces == ["container"]
    made = GatewayConfigProvider().create(props)

    assert made.outs is not None
    assert made.outs["revision"] == state["revision"]


def test_redis_away_is_no_refusal(installation: Installation, state: dict[str, Any]) -> None:
    installation.redis.stop(timeout=5)
    try:
        installation.clients({"bot": CLIENT, "other": CLIENT})
        began = time.monotonic()
        GatewayConfigProvider().update("id", state, installation.props())
        assert installation.token() == 503
        assert time.monotonic() - began < 10, "the lost name delays no start"
    finally:
        installation.redis.start()
    wait_until(
        lambda: installation.token("other") == 200, seconds=120, what="a token after the restart of Redis"
    )


def test_ten_thousand_clients_go_live_in_a_few_seconds(
    installation: Installation, state: dict[str, Any]
) -> None:
    installation.clients({"bot": CLIENT, **{f"client-{number}": CLIENT for number in range(9_999)}})
    props = installation.props()
    began = time.monotonic()

    done = GatewayConfigProvider().update("id", state, props)

    assert time.monotonic() - began < 20
    assert installation.token("client-9998") == 200
    assert done.outs is not None
    assert len(json.dumps(done.outs)) < 10_000, "clients stay out of the state"
    used = installation.gateway.stats(stream=False)["memory_stats"]["usage"]
    assert used < 200 * 2**20
