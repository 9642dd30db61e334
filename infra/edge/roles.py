"""The contexts of all workloads of nginx that a stack has: one, or two where the LLM proxy has an owner.

The owner's files depend on the settings of the LLM proxy and of OAuth alone, so no other change replaces its pod.
"""

import json
from dataclasses import replace

from infra.catalogue.releases import Release
from infra.catalogue.services import LLM_EDGE, NGINX
from infra.edge.context import DOCKER_NAMES, EdgeContext, ServiceNames, edge_context
from infra.edge.limits import EdgeLimits
from infra.edge.owner import Owner
from infra.settings.stack import Settings


def edge_contexts(
    settings: Settings, release: Release, service_names: ServiceNames = DOCKER_NAMES
) -> dict[str, EdgeContext]:
    """Return what the templates read for each workload of nginx, by its service; an owner comes first."""
    whole = edge_context(settings, release, service_names)
    if settings.kubernetes is None or whole.llm is None:
        return {NGINX: whole}
    return {LLM_EDGE: owning(whole), NGINX: passing(whole)}


def passing(edge: EdgeContext) -> EdgeContext:
    """Return the context of nginx that passes requests of the LLM proxy to their owner.

    It has neither tables nor keys, so a new model or key of a caller leaves it as it is. Raises ValueError without the
    LLM proxy.
    """
    if edge.llm is None:
        raise ValueError("there is no LLM proxy to pass requests to")
    llm = replace(edge.llm, upstreams=(), classes=(), tables="{}", hidden=(), tunnel=None)
    return replace(edge, llm=llm, owner=Owner())


def owning(edge: EdgeContext) -> EdgeContext:
    """Return the context of the owner: the LLM proxy, introspection, and nothing else. Raises ValueError without it."""
    if edge.llm is None:
        raise ValueError("there is no LLM proxy to own")
    owner = Owner(here=True)
    tables = {**json.loads(edge.llm.tables), "internal_port": str(owner.inside_port)}
    return replace(
        edge,
        owner=owner,
        llm=replace(edge.llm, tables=json.dumps(tables, indent=1)),
        oauth=replace(edge.oauth, classes=()) if edge.oauth else None,
        limits=_of_oauth(edge),
        services=tuple(one for one in edge.services if edge.oauth and one.name == edge.oauth.internal),
        max_body_megabytes=edge.llm.max_body_megabytes,
        # All of it is the matter of nginx in front of it.
        server_names=(),
        public_scheme="http",
        public_port=owner.port,
        routes=(),
        cors={},
        passed_headers=(),
        trusted_proxies=(),
        console_allow_from=(),
        schema_patterns=(),
        address_connections=0,
        tls=None,
        gate=None,
        ring=None,
    )


def _of_oauth(edge: EdgeContext) -> EdgeLimits:
    """Return the limits that count tokens of the LLM proxy: those of introspections."""
    names = {edge.oauth.refused, edge.oauth.introspections} if edge.oauth else set()
    limits = edge.limits
    return replace(
        limits,
        rates={name: zones for name, zones in limits.rates.items() if name in names},
        connections={name: zones for name, zones in limits.connections.items() if name in names},
        retry_seconds={name: wait for name, wait in limits.retry_seconds.items() if name in names},
    )
