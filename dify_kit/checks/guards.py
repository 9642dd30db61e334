"""The guards of Pulumi's program (`infra.guards.checks`), made by the command line before Pulumi starts."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dify_kit.containers.docker_host import Engine, chosen_engine
from dify_kit.stack.cluster_objects import explained
from dify_kit.workspace.files import StackFiles
from infra import hints
from infra.engine import child_environment
from infra.guards.findings import Refusal
from infra.settings.kubernetes import Kubernetes
from infra.settings.stack import Reading, Settings

if TYPE_CHECKING:
    from infra.guards.checks import Surroundings

_PROVIDER_HOST = "docker:host"
# What `dify-kit init` has an option for.
_OPTIONS = {"httpPort": "--http-port", "bindAddress": "--bind-address"}


def surroundings(files: StackFiles, engine: Engine) -> "Surroundings":
    """Return what the guards look at, as Pulumi's program finds it when `dify-kit up` starts it."""
    from infra.guards.checks import Surroundings  # noqa: PLC0415  # imports Pulumi, which takes a second

    endpoint = chosen_engine()
    host = files.config().get(_PROVIDER_HOST)
    return Surroundings(
        endpoint=endpoint,
        view=engine,
        environ=child_environment(os.environ, endpoint),
        provider_host=host if isinstance(host, str) else "",
    )


def found(files: StackFiles, reading: Reading, engine: Engine) -> Iterator[tuple[str, list[Refusal]]]:
    """Make each guard whose settings are sound: yield its name, and what it refuses."""
    from infra.guards.checks import GUARDS  # noqa: PLC0415

    if chosen := reading.settings.kubernetes:
        if reading.sound("platform", "kubernetes"):
            yield "cluster", _of_cluster(reading.settings, chosen)
        return
    around = surroundings(files, engine)
    for guard in GUARDS:
        if reading.sound(*guard.needs):
            yield guard.name, guard.refusals(reading.settings, reading.settings.dify, around)


def _of_cluster(settings: Settings, chosen: Kubernetes) -> list[Refusal]:
    from infra.engine.cluster_view import ClusterView  # noqa: PLC0415
    from infra.guards import cluster  # noqa: PLC0415

    with explained():
        return cluster.refusals(
            settings, settings.dify, chosen, ClusterView.of(chosen.kubeconfig, chosen.context)
        )


def hint(refusal: Refusal, files: StackFiles) -> str:
    """Return what to do about a refusal, with a command that can be pasted."""
    if not refusal.setting:
        return refusal.fix
    if files.configured():
        return f"{refusal.fix}: {refusal.command(files.stack)}"
    option = _OPTIONS.get(refusal.setting)
    if not refusal.value:
        return f"{refusal.fix}: {option or '--set'} in `{hints.kit('init', '--help')}`"
    given = (option, refusal.value) if option else ("--set", f"{refusal.setting}={refusal.value}")
    return f"{refusal.fix}: {hints.kit('init', files.stack, *given)}"
