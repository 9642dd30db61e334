"""A bound on the processes and threads of a container, which the Docker provider has no argument for.

The engine takes it for a running container and keeps it over restarts. A fork bomb in one container then ends there;
without it, it takes the whole host's process table.
"""

from typing import TYPE_CHECKING, Any

import pulumi
from pulumi import dynamic

if TYPE_CHECKING:
    import requests
    from docker.api.client import APIClient

ENGINE_TIMEOUT_SECONDS = 15
# How long updates that the engine cannot carry out at the moment are repeated.
REFUSALS_SECONDS = 15
AGAIN_SECONDS = 0.5
NOT_FOUND = 404
SERVER_ERROR = 500


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
    import time  # noqa: PLC0415  # where the provider runs

    import pulumi as pulumi_sdk  # noqa: PLC0415

    from infra import engine  # noqa: PLC0415

    api = engine.client(ENGINE_TIMEOUT_SECONDS).api
    deadline = time.monotonic() + REFUSALS_SECONDS
    while (answer := _update(api, props)).status_code >= SERVER_ERROR and time.monotonic() < deadline:
        # The engine fails so when a job ends, or a container restarts, during the update. Once the process is gone,
        # it stores the limit for the next start.
        time.sleep(AGAIN_SECONDS)
    if answer.status_code == NOT_FOUND:
        raise RuntimeError(
            f"{props['service']}: its container {props['container'][:12]} is gone; run `up` again"
        )
    if not answer.ok:
        raise RuntimeError(
            f"{props['service']}: the Docker engine refuses the limit of {props['limit']} processes: "
            f"{_message(answer)}"
        )
    for warning in answer.json().get("Warnings") or []:
        pulumi_sdk.log.warn(f"{props['service']}: {warning}")


def _update(api: "APIClient", props: dict[str, Any]) -> "requests.Response":
    # docker's SDK has this property for new containers alone, not for updates.
    return api.post(
        f"{api.base_url}/v{api.api_version}/containers/{props['container']}/update",
        json={"PidsLimit": int(props["limit"])},
        timeout=ENGINE_TIMEOUT_SECONDS,
    )


def _message(answer: "requests.Response") -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {answer.status_code}"
