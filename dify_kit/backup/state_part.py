"""What Pulumi's state knows of Dify's content: apps, keys, models, the client of the smoke tests.

Containers, networks and volumes are of one engine and stay out. The rest goes with the data: without it, `up` would
make new API keys for the apps, and callers would have to get them.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

_DYNAMIC = "pulumi-python:dynamic:Resource"
_STACK_TYPE = "pulumi:pulumi:Stack"
_PROVIDERS = "pulumi:providers:"
# What every resource of Dify's console has, and what the client of the smoke tests has.
_CONSOLE, _CLIENT = "console_url", frozenset({"client_id", "hash"})


def kept(deployment: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the resources of an exported deployment that go into an archive, each after its parents.

    References to resources that stay out are left out, too.
    """
    resources = {str(one["urn"]): one for one in deployment.get("resources") or []}
    wanted = {urn for urn, one in resources.items() if _of_dify(one)}
    for urn in list(wanted):
        parent = str(resources[urn].get("parent") or "")
        while parent in resources and resources[parent].get("type") != _STACK_TYPE:
            wanted.add(parent)
            parent = str(resources[parent].get("parent") or "")
    return [_alone(one, wanted) for urn, one in resources.items() if urn in wanted]


def _of_dify(resource: Mapping[str, Any]) -> bool:
    if resource.get("type") != _DYNAMIC:
        return False
    known = {*(resource.get("inputs") or {}), *(resource.get("outputs") or {})}
    return _CONSOLE in known or known >= _CLIENT


def _alone(resource: Mapping[str, Any], wanted: set[str]) -> dict[str, Any]:
    found = dict(resource)
    found["dependencies"] = [urn for urn in resource.get("dependencies") or [] if urn in wanted]
    found["propertyDependencies"] = {
        name: [urn for urn in urns or [] if urn in wanted]
        for name, urns in (resource.get("propertyDependencies") or {}).items()
    }
    return {key: value for key, value in found.items() if value not in ([], {}) or key in resource}


def merged(
    deployment: Mapping[str, Any],
    resources: list[dict[str, Any]],
    *,
    old: str,
    new: str,
    reference: Callable[[str], str],
) -> dict[str, Any]:
    """Return a deployment of stack `new` with the resources of an archive of stack `old` added.

    `reference` maps what names a container there to what names it here.
    """
    there = list(deployment.get("resources") or [])
    known = {str(one["urn"]) for one in there}
    root = next(str(one["urn"]) for one in there if one.get("type") == _STACK_TYPE)
    provider = next(
        (
            f"{one['urn']}::{one['id']}"
            for one in there
            if str(one.get("type")).startswith(f"{_PROVIDERS}pulumi-python")
        ),
        "",
    )
    moved = json.loads(json.dumps(resources).replace(f"urn:pulumi:{old}::", f"urn:pulumi:{new}::"))
    for one in moved:
        if one["urn"] in known:
            continue
        if one.get("provider"):
            one["provider"] = provider
        if one.get("parent") not in {*known, *(other["urn"] for other in moved)}:
            one["parent"] = root
        for part in ("inputs", "outputs"):
            values = one.get(part) or {}
            if isinstance(container := values.get("container"), str):
                values["container"] = reference(container)
        there.append(one)
    return {**deployment, "resources": there}
