"""Pulumi's Kubernetes provider, for stacks on that platform: the official plugin, else one built from Go modules.

It is Pulumi's plugin `resource-kubernetes` of the version that the program asks for. Only a stack with `dify:platform`
kubernetes, or `dify-kit setup --kubernetes`, installs it.
"""

import os
import shutil
from pathlib import Path

from dify_kit.errors import KitError
from dify_kit.setup.commands import done, run_step
from dify_kit.setup.engine_build import SOURCES
from dify_kit.setup.go_build import GoBuild, Part, build_all
from dify_kit.setup.plugins import is_ours, offer, plugin
from dify_kit.setup.pulumi_engine import INSTALL_SECONDS, engine_env, reachable
from dify_kit.talk import say
from infra.platforms.kubernetes import PROVIDER_VERSION

PROGRAM = "pulumi-resource-kubernetes"


def provider_build() -> GoBuild:
    """Return the build of the provider. It takes 4 to 8 minutes on two cores."""
    return GoBuild(
        name="Pulumi's Kubernetes provider",
        folder="providers",
        version=f"kubernetes-{PROVIDER_VERSION}",
        sources=SOURCES,
        parts=(Part(module="kubernetes", package=".", program=PROGRAM),),
    )


def kubernetes_plugin() -> Path:
    """Return where Pulumi keeps the provider."""
    return plugin("kubernetes", PROVIDER_VERSION)


def ensure_kubernetes_provider() -> None:
    """Make sure that Pulumi has the provider. Raises KitError with the reason and the next thing to try."""
    place, build = kubernetes_plugin(), provider_build()
    what = f"Pulumi's Kubernetes provider {PROVIDER_VERSION}"
    if place.is_file() and not is_ours(place):
        done(what, f"official, in {place.parent}")
        return
    if not build.is_complete():
        if reachable() and _install_official():
            done(what, f"official, in {place.parent}")
            return
        build_all([build])
    if problem := offer(build.directory / PROGRAM, place):
        raise KitError(
            f"{what} cannot be linked into Pulumi's directory of plugins: {place}: {problem.strerror}",
            "make that directory writable, or set PULUMI_HOME to one that is",
        )
    done(what, f"built, in {build.directory}")


def _install_official() -> bool:
    """Let Pulumi download the plugin; on failure report it, so that the provider is built instead."""
    environment = {**os.environ, **engine_env()}
    environment.pop("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", None)
    pulumi = shutil.which("pulumi", path=environment["PATH"]) or "pulumi"
    if is_ours(kubernetes_plugin()):
        # Pulumi leaves a directory that is there as it is.
        kubernetes_plugin().unlink()
        kubernetes_plugin().parent.rmdir()
    try:
        run_step(
            f"installing Pulumi's Kubernetes provider {PROVIDER_VERSION}",
            [pulumi, "plugin", "install", "resource", "kubernetes", f"v{PROVIDER_VERSION}"],
            hint="",
            seconds=INSTALL_SECONDS,
            env=environment,
        )
    except KitError as problem:
        say(f"  the official provider cannot be installed ({problem}): it is built instead")
        return False
    return kubernetes_plugin().is_file()
