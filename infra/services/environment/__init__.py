"""The environment of the stack's services, derived from the settings: one module for each kind of service.

Variable names and their meaning: Dify's docker/docker-compose.yaml and docker/envs of the supported releases.
"""

from collections.abc import Callable, Mapping

from infra.catalogue import images, services
from infra.catalogue.releases import Release
from infra.services.environment import api, plugin_daemon, sandboxes, vector_stores, web
from infra.services.environment.values import Environment, redis_url
from infra.settings.stack import Settings

__all__ = ["BUILDERS", "Environment", "environment", "redis_url"]

# Without an entry a service gets the variables of `dify:extraEnv` alone.
BUILDERS: Mapping[str, Callable[[Settings, Release], Environment]] = {
    "api": api.api,
    "api-websocket": api.api_websocket,
    "worker": api.worker,
    "worker-beat": api.worker_beat,
    "migration": api.migration,
    "web": web.web,
    "plugin-daemon": plugin_daemon.plugin_daemon,
    "sandbox": sandboxes.sandbox,
    "local-sandbox": sandboxes.local_sandbox,
    "agent-backend": sandboxes.agent_backend,
    "weaviate": vector_stores.weaviate,
    "qdrant": vector_stores.qdrant,
}


def environment(service: str, settings: Settings, release: Release) -> Environment:
    """Return the variables of a service that reads some; `dify:extraEnv` comes last and wins."""
    build = BUILDERS.get(service)
    base = build(settings, release) if build else {}
    if settings.images == "local" and images.stands_in(services.SERVICES[service].image):
        # The official images contain the version; the stand-in needs the variable.
        base["DIFY_STANDIN_RELEASE"] = release.version
    return {**_as_named_by(release, base), **settings.extra_env.get(service, {})}


def _as_named_by(release: Release, base: Environment) -> Environment:
    """Return an environment with the names, and their values, that a release knows."""
    named: Environment = {}
    for name, value in base.items():
        renamed = release.renamed.get(name)
        if renamed is None:
            named[name] = value
        else:
            named[renamed.name] = renamed.values.get(value, value) if isinstance(value, str) else value
    return named
