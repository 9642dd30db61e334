"""Refuses to look at one engine while Pulumi's Docker provider would create containers on another."""

from collections.abc import Mapping

from infra import engine, hints
from infra.guards.findings import Refusal


def refusals(
    stack: str, endpoint: engine.Endpoint, environ: Mapping[str, str], provider_host: str
) -> list[Refusal]:
    """Return why the choice of the engine is ambiguous.

    `environ` is the provider's environment, `provider_host` the stack's `docker:host`.
    """
    taken = engine.provider_takes(environ, provider_host)
    if taken == endpoint.address:
        return []
    fix = (
        f"remove docker:host: `{hints.pulumi('config', 'rm', 'docker:host', stack=stack)}`"
        if provider_host
        else f"run `{hints.prepare(stack)}` first, which names one engine for both"
    )
    return [
        Refusal(
            problem=f"Docker's own rules choose the engine at {endpoint}, and Pulumi's Docker provider would take "
            f"{taken}",
            fix=fix,
        )
    ]
