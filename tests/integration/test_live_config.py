"""How a configuration goes live in nginx's container: the kit's own image, script and volume, without Pulumi."""

import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import docker
import pytest

from infra.catalogue.container_paths import EDGE_UID
from infra.catalogue.releases import RELEASES
from infra.edge.context import edge_context
from infra.edge.paths import DRAIN_MARK, EDGE_DIRECTORY, NGINX_CONFIG, RUN_DIRECTORY
from infra.edge.render import EdgeConfiguration, edge_configuration
from infra.resources.configuration import ConfigurationRejectedError
from infra.resources.edge_container import EdgeContainer
from infra.resources.live_config import LiveConfigProvider
from infra.resources.revision_container import ContainerError
from infra.services.specs import spec as spec_of
from support.configuration import settings
from support.images import image_of
from support.stacks import unique, wait_until

Docker = Any  # docker's models are not typed
API = """
from http.server import *
class H(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "8"); self.end_headers()
        self.wfile.write(b"from api")
    def log_message(self, *a): pass
ThreadingHTTPServer(("0.0.0.0", 5001), H).serve_forever()
"""
REVISION_URL = "http://127.0.0.1:8081/revision"


class Nginx:
    """The edge's container as the platform would start it, without anything behind it."""

    def __init__(self) -> None:
        self.client: Docker = docker.from_env(timeout=60)
        self.name = unique("live")
        self.volumes = [self.client.volumes.create(f"{self.name}-{name}") for name in ("edge", "edge_temp")]
        self.network = self.client.networks.create(self.name)
        self.others: list[Docker] = []
        self.container = self.start()

    def stand_behind(self, name: str = "api", *, listen: bool = True) -> Docker:
        """Start a service behind nginx; `listen` False: it only takes an address."""
        container = self.client.containers.create(
            image_of("api"),
            entrypoint=["python3", "-c", API if listen else "input()"],
            tty=True,
            network_mode="none",
        )
        self.others.append(container)
        self.client.networks.get("none").disconnect(container)
        self.network.connect(container, aliases=[name])
        container.start()
        if listen:
            wait_until(
                lambda: container.exec_run(["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/5001"]).exit_code == 0,
                seconds=120,
                what="the service behind nginx",
            )
        return container

    def start(self) -> Docker:
        """Start a container over the volumes."""
        name = image_of("nginx")
        spec = spec_of("nginx", found := settings(), found.dify)
        mounts = {
            volume.name: {"bind": mount.path, "mode": "rw"}
            for volume, mount in zip(self.volumes, spec.mounts, strict=True)
        }
        assert spec.entrypoint is not None
        return self.client.containers.run(
            name,
            list(spec.command or ()),
            name=f"{self.name}-{secrets.token_hex(2)}",
            entrypoint=list(spec.entrypoint),
            user=spec.user,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            read_only=True,
            tmpfs=dict(spec.tmpfs),
            volumes=mounts,
            network=self.network.name,
            stop_signal=spec.stop_signal,
            detach=True,
        )

    def recreate(self) -> None:
        """Replace the container; the volumes stay."""
        self.container.remove(force=True)
        self.container = self.start()

    def props(self, configuration: EdgeConfiguration, **more: Any) -> dict[str, Any]:
        """Return the inputs of the resource for a configuration."""
        return {
            "container": self.container.id,
            "files": dict(configuration.files),
            "private_files": {},
            "revision": configuration.revision,
            "templates": {},
            "direct": {},
            # Pulumi hands numbers over as floats.
            "owner": float(EDGE_UID),
            **more,
        }

    def output_of(self, *command: str) -> str:
        """Run a command in the container and return what it printed."""
        done = self.container.exec_run(list(command))
        assert done.exit_code == 0, done.output
        return str(done.output.decode())

    def remove(self) -> None:
        """Remove everything."""
        self.container.remove(force=True)
        for other in self.others:
            with suppress(docker.errors.NotFound):
                other.remove(force=True)
        self.network.remove()
        for volume in self.volumes:
            volume.remove(force=True)


@pytest.fixture
def nginx() -> Iterator[Nginx]:
    """A container that waits for its first configuration."""
    one = Nginx()
    try:
        yield one
    finally:
        one.remove()


def configuration(**snippets: str) -> EdgeConfiguration:
    """Return a configuration with snippets: `http` or `server` -> text."""
    base = edge_configuration(edge_context(settings(), RELEASES["1.17.1"]))
    revision = secrets.token_hex(6)
    files = {path: text.replace(base.revision, revision) for path, text in base.files.items()}
    files |= {f"snippets/{where}/own.conf": text for where, text in snippets.items()}
    return EdgeConfiguration(revision=revision, files=files)


def live(
    nginx: Nginx, provider: LiveConfigProvider, wanted: EdgeConfiguration, **more: Any
) -> dict[str, Any]:
    """Bring a configuration live and return the resource's outputs."""
    made = provider.create(nginx.props(wanted, **more))
    assert made.outs is not None
    assert wanted.revision in nginx.output_of("curl", "-fsS", REVISION_URL)
    return dict(made.outs)


def test_first_configuration_starts_nginx_and_the_next_ones_replace_it(nginx: Nginx) -> None:
    provider = LiveConfigProvider()
    with pytest.raises(AssertionError):
        nginx.output_of("curl", "-fsS", REVISION_URL)

    first, second, third = configuration(), configuration(), configuration()
    outs = live(nginx, provider, first)
    started = nginx.output_of("cat", f"{RUN_DIRECTORY}/nginx.pid")
    outs = provider.update("id", outs, nginx.props(second)).outs or {}
    provider.update("id", outs, nginx.props(third))

    assert third.revision in nginx.output_of("curl", "-fsS", REVISION_URL)
    assert nginx.output_of("cat", f"{RUN_DIRECTORY}/nginx.pid") == started == "1\n"
    assert set(nginx.output_of("ls", f"{EDGE_DIRECTORY}/releases").split()) == {
        second.revision,
        third.revision,
    }
    assert nginx.container.exec_run(["test", "-e", DRAIN_MARK]).exit_code == 1


def test_rejected_configuration_names_the_line_and_the_old_one_stays(nginx: Nginx) -> None:
    provider = LiveConfigProvider()
    good = configuration()
    outs = live(nginx, provider, good)

    with pytest.raises(ConfigurationRejectedError) as caught:
        provider.update("id", outs, nginx.props(configuration(server="# one\n# two\nbogus_directive on;\n")))

    assert "snippets/server/own.conf, line 3" in str(caught.value)
    assert 'unknown directive "bogus_directive"' in str(caught.value)
    assert "the old one stays" in str(caught.value)
    assert good.revision in nginx.output_of("curl", "-fsS", REVISION_URL)
    assert nginx.output_of("readlink", f"{EDGE_DIRECTORY}/current").strip() == f"releases/{good.revision}"


def test_configuration_that_passes_the_test_but_not_the_reload_is_switched_back(nginx: Nginx) -> None:
    zone = "limit_req_zone {key} zone=own:1m rate=1r/s;\n"
    provider = LiveConfigProvider()
    good = configuration(http=zone.format(key="$binary_remote_addr"))
    outs = live(nginx, provider, good)

    # nginx -t accepts it and the reload exits with 0, but a running zone does not change its key.
    with pytest.raises(ConfigurationRejectedError) as caught:
        provider.update("id", outs, nginx.props(configuration(http=zone.format(key="$server_name"))))

    assert 'limit_req "own" uses the "$server_name" key while previously it used' in str(caught.value)
    assert good.revision in str(caught.value)
    assert good.revision in nginx.output_of("curl", "-fsS", REVISION_URL)
    assert nginx.output_of("readlink", f"{EDGE_DIRECTORY}/current").strip() == f"releases/{good.revision}"
    # And the next good one goes live.
    live(nginx, provider, configuration(http=zone.format(key="$binary_remote_addr")))


def test_service_behind_is_reached_at_its_address_and_through_the_hop_when_it_moved(nginx: Nginx) -> None:
    provider = LiveConfigProvider()
    api = nginx.stand_behind()
    network = nginx.network.name
    direct = {"service": "api", "container": api.id, "network": network, "port": "5001"}
    wanted = configuration()
    outs = live(nginx, provider, wanted, direct=direct)
    api.reload()
    address = api.attrs["NetworkSettings"]["Networks"][network]["IPAddress"]

    def answer() -> str:
        return nginx.output_of("curl", "-sS", "-H", "Host: localhost:8080", "http://127.0.0.1:8080/v1/x")

    def answers_soon() -> None:
        # What has just started is a 503 until it says that it is well.
        wait_until(lambda: answer() == "from api", seconds=120, what="an answer of api")

    assert f"server {address}:5001 " in nginx.output_of("cat", f"{EDGE_DIRECTORY}/current/live/api.conf")
    answers_soon()
    assert provider.read("id", outs).outs == outs, "no drift"

    # Another container gets the old address, and api another one, without a signal to nginx.
    api.remove(force=True)
    nginx.stand_behind(name="stranger", listen=False)
    moved = nginx.stand_behind()
    moved.reload()
    assert moved.attrs["NetworkSettings"]["Networks"][network]["IPAddress"] != address
    answers_soon()

    # The next refresh sees it, and `up` puts the new address in.
    news = nginx.props(wanted, direct={**direct, "container": moved.id})
    assert provider.diff("id", outs, news).changes
    outs = dict(provider.update("id", outs, news).outs or {})
    assert f"server {address}:5001 " not in nginx.output_of("cat", f"{EDGE_DIRECTORY}/current/live/api.conf")
    answers_soon()
    moved.remove(force=True)
    assert provider.read("id", outs).outs == outs, "a service that is away is no drift of the edge"


def test_restarted_and_recreated_containers_come_back_with_it(nginx: Nginx) -> None:
    provider = LiveConfigProvider()
    wanted = configuration()
    outs = live(nginx, provider, wanted)

    nginx.container.restart(timeout=30)
    assert EdgeContainer(nginx.container.id).wait_for(wanted.revision, 20)
    nginx.container.kill(signal="SIGKILL")
    nginx.container.start()
    assert EdgeContainer(nginx.container.id).wait_for(wanted.revision, 20), "sockets of a killed nginx"
    nginx.recreate()
    assert EdgeContainer(nginx.container.id).wait_for(wanted.revision, 20), "from the volume, before any push"

    assert provider.diff("id", outs, nginx.props(wanted)).replaces == ["container"]
    began = time.monotonic()
    live(nginx, provider, wanted)
    assert time.monotonic() - began < 5


def test_nginx_that_does_not_answer_is_reloaded_all_the_same(nginx: Nginx) -> None:
    provider = LiveConfigProvider()
    outs = live(nginx, provider, configuration())
    new = configuration()
    workers = nginx.output_of(
        "sh", "-c", f"cat /proc/$(cat {RUN_DIRECTORY}/nginx.pid)/task/*/children"
    ).split()
    assert workers
    nginx.output_of("sh", "-c", f"kill -STOP {' '.join(workers)}")
    assert EdgeContainer(nginx.container.id).running() == ""

    provider.update("id", outs, nginx.props(new))

    assert new.revision in nginx.output_of("curl", "-fsS", REVISION_URL)


def test_container_with_a_configuration_that_does_not_work_waits_for_a_better_one(nginx: Nginx) -> None:
    provider = LiveConfigProvider()
    live(nginx, provider, configuration())
    config = f"{EDGE_DIRECTORY}/current/nginx.conf"
    done = nginx.container.exec_run(["sh", "-c", f"rm {config} && echo broken > {config}"], user="0")
    assert done.exit_code == 0
    nginx.recreate()
    time.sleep(1)

    assert EdgeContainer(nginx.container.id).running() == ""
    live(nginx, provider, configuration())


def test_first_configuration_that_is_broken_fails_with_its_line(nginx: Nginx) -> None:
    with pytest.raises(ConfigurationRejectedError, match=r"snippets/http/own.conf, line 1 .*: 'bogus on;'"):
        LiveConfigProvider().create(nginx.props(configuration(http="bogus on;\n")))


def test_private_files_are_readable_by_nginx_alone(nginx: Nginx) -> None:
    provider = LiveConfigProvider()
    key = secrets.token_urlsafe(24)
    live(nginx, provider, configuration(), private_files={"keys/one.key": key})

    path = f"{EDGE_DIRECTORY}/current/keys/one.key"
    assert nginx.output_of("stat", "-c", "%u %a", path).split() == ["101", "400"]
    assert nginx.output_of("cat", path) == key
    written = nginx.container.exec_run(["sh", "-c", f"echo x > {NGINX_CONFIG}"])
    assert written.exit_code != 0, "nginx itself cannot change its configuration"


def test_change_by_hand_is_seen_and_undone(nginx: Nginx) -> None:
    provider = LiveConfigProvider()
    wanted = configuration()
    outs = live(nginx, provider, wanted)
    other = configuration()
    provider.update("id", outs, nginx.props(other))

    seen = provider.read("id", outs)
    assert seen.outs is not None
    assert seen.outs["revision"] == other.revision
    assert provider.diff("id", dict(seen.outs), nginx.props(wanted)).changes
    provider.update("id", dict(seen.outs), nginx.props(wanted))
    assert wanted.revision in nginx.output_of("curl", "-fsS", REVISION_URL)


def test_stopped_container_is_reported_gone_and_cannot_be_changed(nginx: Nginx) -> None:
    provider = LiveConfigProvider()
    outs = live(nginx, provider, configuration())
    nginx.container.stop(timeout=10)

    assert provider.read("id", outs).id == ""
    with pytest.raises(ContainerError, match="exited"):
        provider.create(nginx.props(configuration()))


def test_waiting_container_stops_at_once(nginx: Nginx) -> None:
    began = time.monotonic()
    nginx.container.stop(timeout=20)

    assert time.monotonic() - began < 10
    nginx.container.reload()
    assert nginx.container.attrs["State"]["ExitCode"] == 0
