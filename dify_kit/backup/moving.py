"""From one platform to another: which settings stay behind, and how the new platform names what runs a service.

Keys, clients, apps, limits and the public URL are the stack's own. What says how a platform runs it is the platform's.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dify_kit.stack.cluster_view import reference
from dify_kit.stack.setting_path import Path
from dify_kit.workspace.files import PROJECT
from infra.catalogue.services import SERVICES
from infra.engine.cluster import Workload
from infra.platforms.kubernetes.names import dns_label
from infra.settings.kubernetes import DOCKER, KUBERNETES
from infra.settings.stack import Settings

_PLATFORM = f"{PROJECT}:platform"
# Of each platform, what has no meaning on another one.
_OWN: Mapping[str, Sequence[str]] = {DOCKER: ("bindAddress",), KUBERNETES: ("kubernetes",)}


def platform_of(
    settings: Mapping[str, object], parts: Sequence[tuple[Path, object]], config: Mapping[str, Any]
) -> str:
    """Return the platform of a stack that is made from settings, with these changes."""
    asked = [value for path, value in parts if path == ("platform",)]
    if asked:
        return str(asked[-1])
    if "platform" in settings:
        return str(settings["platform"] or DOCKER)
    return str(config.get(_PLATFORM) or DOCKER)


def moved(config: Mapping[str, Any], platform: str) -> tuple[dict[str, Any], list[str]]:
    """Return settings without those of another platform, and a line for each that is left out."""
    before = str(config.get(_PLATFORM) or DOCKER)
    found = {**config, _PLATFORM: platform}
    if before == platform:
        return dict(config), []
    lines = []
    for key in _OWN.get(before, ()):
        if f"{PROJECT}:{key}" in found:
            del found[f"{PROJECT}:{key}"]
            lines.append(f"dify:{key} is left out: it is a setting of dify:platform {before}")
    if platform == KUBERNETES and isinstance(resources := found.get(f"{PROJECT}:resources"), Mapping):
        limited = [name for name, one in resources.items() if isinstance(one, Mapping) and "pids" in one]
        found[f"{PROJECT}:resources"] = {
            name: {key: value for key, value in one.items() if key != "pids"} if name in limited else one
            for name, one in resources.items()
        }
        lines += [f"dify:resources.{name}.pids is left out: Kubernetes has no such limit" for name in limited]
    return found, lines


def references(settings: Settings) -> Callable[[str], str]:
    """Return what maps the reference of a service on any platform to the one that it has in the new stack."""
    chosen = settings.kubernetes

    def mapped(old: str) -> str:
        service = service_of(old)
        if not service:
            return old
        if chosen is None:
            return f"dify-{settings.stack}-{service}"
        kind = "StatefulSet" if SERVICES[service].holds_data else "Deployment"
        return reference(chosen, kind, dns_label(service))

    return mapped


def service_of(old: str) -> str:
    """Return the service that a reference names: a container, or a workload of a cluster; empty for another text."""
    try:
        name = Workload.parse(old).name
    except ValueError:
        # `gateway-redis` ends as `redis` does.
        names = [one for one in SERVICES if old.startswith("dify-") and old.endswith(f"-{one}")]
        name = max(names, key=len, default="")
    return name if name in SERVICES else ""
