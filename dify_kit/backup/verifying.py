"""Proves an archive: restores it into a stack on this machine alone, runs the smoke tests, and removes it."""

import secrets
from contextlib import suppress
from pathlib import Path

from dify_kit.backup import verify_homes
from dify_kit.backup.restoring import Checked, Wish, examine, restore
from dify_kit.containers.docker_host import DockerEngine
from dify_kit.deploying import take_down
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import KitError
from dify_kit.smoke.run import run
from dify_kit.stack import forget
from dify_kit.talk import say, step, warn
from dify_kit.workspace.files import StackFiles
from infra.guards.ports import free_port

UP_SECONDS, DOWN_SECONDS, SMOKE_SECONDS = 5400.0, 1800.0, 1800.0
_FIRST_PORT = 18080
# What belongs to the address that users know. The stack listens on this machine alone, without a certificate.
_ADDRESS = ("publicUrl", "urls", "serverNames", "tls", "tlsCertificate", "tlsKey", "bindAddress", "httpsPort")
_ACCESS = ("trustedProxies", "proxyProtocol", "consoleAllowFrom")
_PROTECTION = ("protect",)
# A stack of a cluster is proven on this machine's engine.
_PLACE = ("platform", "kubernetes")
# Tasks in the queues would be carried out once more.
_WITHOUT = frozenset({"redis"})


def verify(archive: Path, passphrase: str) -> Checked:
    """Restore, compare rows and files, run the smoke tests, remove. Raises KitError for an archive that does not do."""
    checked = examine(archive, passphrase)
    name = f"{verify_homes.PREFIX}{secrets.token_hex(3)}"
    verify_homes.remove_abandoned(lambda left: _remove(StackFiles.open(left)))
    with verify_homes.home(name):
        files = StackFiles.open(name)
        engine = DockerEngine()
        port = free_port(engine, ("127.0.0.1",), _FIRST_PORT)
        if port is None:
            raise KitError(f"no port is free from {_FIRST_PORT} on", "free one")
        changed: dict[str, object] = {
            **dict.fromkeys((*_ADDRESS, *_ACCESS, *_PROTECTION, *_PLACE)),
            "httpPort": port,
        }
        wish = Wish(archive=archive, passphrase=passphrase, stack=name, settings=changed, without=_WITHOUT)
        say(f"stack {name} on port {port} is made for this and removed again")
        try:
            with files.lock():
                restore(wish, checked, DockerEngine, deadline=UP_SECONDS)
            step("running the smoke tests")
            ended = run(name, [], deadline=SMOKE_SECONDS, quiet=False)
            if ended.code or ended.cancelled:
                raise KitError(
                    f"{archive} was restored, rows and files are those of the archive, and the smoke tests failed: "
                    f"{ended.summary}",
                    "their output above says which; compare with the smoke tests of the stack itself",
                )
        finally:
            _remove(files)
    say(f"{archive} is proven: restored, rows and files compared, smoke tests passed, removed")
    return checked


def _remove(files: StackFiles) -> None:
    """Remove the stack with its data, however far it came. A failure becomes a warning."""
    step(f"removing stack {files.stack}")
    engine = DockerEngine()
    try:
        if files.configured():
            take_down(files, engine, deadline=DOWN_SECONDS)
    except KitError as problem:
        warn(problem.message)
        for container in engine.containers(files.stack):
            engine.remove_container(container.id)
        for network in engine.networks(files.stack):
            engine.remove_network(network.id)
    with suppress(KitError):
        pulumi = Pulumi(files=files)
        forget.forget(pulumi, engine, forget.find(pulumi, engine), delete_data=True)
