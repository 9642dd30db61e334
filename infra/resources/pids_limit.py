"""A bound on the processes and threads of a container, which the Docker provider has no argument for.

The engine takes it for a running container and keeps it over restarts. A fork bomb in one container then ends there;
without it, it takes the whole host's process table.
"""

from typing import Any

import pulumi
from pulumi import dynamic

ENGINE_TIMEOUT_SECONDS = 15


class PidsLimitProvider(dynamic.ResourceProvider):
    """Sets the limit in the engine. Inputs: `container` (its id), `service`, `limit` (at most so many tasks)."""

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Set the limit. Raises the SDK's error when the engine refuses it."""
        _set(props)
        return dynamic.CreateResult(f"pids-{props['service']}", outs=props)

    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> dynamic.UpdateResult:
        """Set another limit, or that of another container."""
        _set(news)
        return dynamic.UpdateResult(outs=news)

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> dynamic.DiffResult:
        """Compare what was set with what is wanted."""
        keys = ("container", "limit")
        return dynamic.DiffResult(changes=any(olds.get(key) != news.get(key) for key in keys))

    def read(self, id: str, props: dict[str, Any]) -> dynamic.ReadResult:  # noqa: A002  # Pulumi's name
        """Look at the container: gone with it, or with another limit, that is drift."""
        import docker  # noqa: PLC0415  # kept out of the pickled provider

        from infra import engine  # noqa: PLC0415

        try:
            found = engine.client(ENGINE_TIMEOUT_SECONDS).api.inspect_container(props["container"])
        except docker.errors.NotFound:
            return dynamic.ReadResult("", {})
        return dynamic.ReadResult(id, {**props, "limit": found["HostConfig"].get("PidsLimit") or 0})


class PidsLimit(dynamic.Resource):
    """At most `limit` processes and threads in a container."""

    def __init__(
        self,
        name: str,
        *,
        container: pulumi.Input[str],
        service: str,
        limit: int,
        opts: pulumi.ResourceOptions,
    ) -> None:
        props = {"container": container, "service": service, "limit": limit}
        super().__init__(PidsLimitProvider(), name, props, opts)


def _set(props: dict[str, Any]) -> None:
    import pulumi as pulumi_sdk  # noqa: PLC0415  # where the provider runs

    from infra import engine  # noqa: PLC0415

    api: Any = engine.client(ENGINE_TIMEOUT_SECONDS).api
    limit = int(props["limit"])
    # docker's SDK has this property for new containers alone, not for updates.
    answer = api.post(
        f"{api.base_url}/v{api.api_version}/containers/{props['container']}/update",
        json={"PidsLimit": limit},
        timeout=ENGINE_TIMEOUT_SECONDS,
    )
    answer.raise_for_status()
    for warning in answer.json().get("Warnings") or []:
        pulumi_sdk.log.warn(f"{props['service']}: {warning}")
