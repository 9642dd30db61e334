"""Pulumi mocks that remember every resource, and the program run against them."""

import asyncio
import functools
import json
import runpy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pulumi
from pulumi.runtime import mocks

from support import event_loops
from support.configuration import configure

PROGRAM = Path(__file__).resolve().parents[2] / "infra" / "__main__.py"
CONTAINER = "docker:index/container:Container"
NETWORK = "docker:index/network:Network"
VOLUME = "docker:index/volume:Volume"
IMAGE = "docker:index/remoteImage:RemoteImage"
CLUSTER_SERVICE = "kubernetes:core/v1:Service"
# That of every Service.
CLUSTER_ADDRESS = "10.96.0.7"
DYNAMIC = "pulumi-python:dynamic:Resource"


# Under this key Pulumi's engine marks a special value, such as a secret, on the wire.
SIGNATURE = "4dabf18193072939515e22adb298388d"


def _plain(value: Any) -> Any:
    """Return inputs with the values of secrets in the place of their envelopes."""
    if isinstance(value, dict):
        return (
            _plain(value["value"]) if SIGNATURE in value else {key: _plain(one) for key, one in value.items()}
        )
    return [_plain(one) for one in value] if isinstance(value, list) else value


@dataclass(frozen=True, kw_only=True)
class Registered:
    """One resource as the program asked for it."""

    type: str
    name: str
    inputs: dict[str, Any]
    # Of a provider that the program chose itself; empty for Pulumi's own.
    provider: str = ""
    # The names that it may have in a state.
    former: frozenset[str] = frozenset()


@dataclass
class Recorder(mocks.Mocks):
    """Answers every registration with its inputs and an id, and keeps it."""

    resources: list[Registered] = field(default_factory=list)
    former: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    # What of a resource Pulumi does not compare, by its name.
    ignored: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # What each resource depends on, by names.
    needs: dict[str, frozenset[str]] = field(default_factory=dict)

    def note(self, request: Any) -> None:
        """Keep the aliases and dependencies of a registration, which Pulumi's mocks leave out."""
        self.former[request.type, request.name] = frozenset(one.spec.name for one in request.aliases)
        self.ignored[request.name] = tuple(request.ignoreChanges)
        self.needs[request.name] = frozenset(urn.rsplit("::", 1)[-1] for urn in request.dependencies)

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        self.resources.append(
            Registered(
                type=args.typ,
                name=args.name,
                inputs=_plain(args.inputs),
                provider=args.provider or "",
                former=self.former[args.typ, args.name],
            )
        )
        outputs = dict(args.inputs)
        if args.typ == IMAGE:
            outputs["imageId"] = f"sha256:{args.name}"
        if args.typ == CLUSTER_SERVICE:
            outputs["spec"] = {**outputs["spec"], "clusterIP": CLUSTER_ADDRESS}
        if "app_name" in outputs:
            outputs |= {"app_id": f"id-of-{outputs['app_name']}", "mode": "advanced-chat"}
        # What the provider makes is null among the inputs, and nulls are not sent.
        if "app_id" in outputs and "owner" in outputs:
            outputs["key"] = f"app-made-by-the-mock-{args.name}"
        if "client_id" in outputs:
            outputs |= {"secret": "dks_made-by-the-mock", "hash": "hash-of-the-mock"}
        return f"{args.name}-id", outputs

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        raise AssertionError(f"the program looks something up: {args.token}")

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the inputs of every resource of a type, by its name."""
        return {one.name: one.inputs for one in self.resources if one.type == kind}


def run_program(
    plain: Mapping[str, Any] | None = None, stack: str = "unit", secrets: Mapping[str, str] | None = None
) -> Recorder:
    """Return what `infra/__main__.py` declares. One run for each configuration serves all tests."""
    return _run(json.dumps(plain or {}, sort_keys=True), stack, json.dumps(secrets or {}, sort_keys=True))


@functools.cache
def _run(plain: str, stack: str, secrets: str) -> Recorder:
    recorder = Recorder()
    # A loop of its own: the run is kept for all tests, and each of those has another loop. What settings of
    # earlier tests left unfinished hangs on closed loops, and Pulumi would wait for it.
    loop, loop_of_the_test = asyncio.new_event_loop(), asyncio.get_event_loop()
    asyncio.set_event_loop(loop)
    try:
        pulumi.runtime.settings.reset_options(project="dify", stack=stack)
        configure(json.loads(plain), json.loads(secrets))
        config = dict(pulumi.runtime.config.CONFIG.get())
        secret = sorted(pulumi.runtime.config._SECRET_KEYS.get())
        pulumi.runtime.mocks.set_mocks(recorder, project="dify", stack=stack, preview=False)
        pulumi.runtime.set_all_config(config, secret)

        answer: Any = mocks.MockMonitor.RegisterResource

        def register(monitor: mocks.MockMonitor, request: Any) -> Any:
            recorder.note(request)
            return answer(monitor, request)

        async def program() -> None:
            runpy.run_path(str(PROGRAM), run_name="__main__")

        # No engine in unit tests: no volumes are there yet, and no port is taken.
        with (
            mock.patch("infra.guards.volumes.existing", return_value={}),
            mock.patch("infra.guards.containers.existing", return_value={}),
            mock.patch("infra.guards.ports.publishers", return_value=None),
            mock.patch.object(mocks.MockMonitor, "RegisterResource", register),
            # No cluster either: its DNS server has this address.
            mock.patch("infra.guards.cluster.check", return_value="10.96.0.10"),
            # And every image is loaded.
            mock.patch(
                "infra.guards.images.ids", side_effect=lambda names: {one: f"sha256:{one}" for one in names}
            ),
        ):
            loop.run_until_complete(pulumi.runtime.stack.run_pulumi_func(lambda: loop.create_task(program())))
    finally:
        event_loops.close(loop)
        asyncio.set_event_loop(loop_of_the_test)
    return recorder
