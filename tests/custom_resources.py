"""Objects of cert-manager and KEDA, held to the schemas that these publish.

`tests/facts/custom-resources.json` has the schemas without their descriptions, from the CustomResourceDefinitions in
the Go modules `github.com/cert-manager/cert-manager` and `github.com/kedacore/keda/v2` (Apache License 2.0).
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FACTS = Path(__file__).parent / "facts" / "custom-resources.json"
TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


def problems(manifest: Mapping[str, Any]) -> list[str]:
    """Return what an API server with the definitions would refuse or drop, by path."""
    schemas = json.loads(FACTS.read_text(encoding="utf-8"))
    schema = schemas[f"{manifest['apiVersion']} {manifest['kind']}"]["schema"]
    return list(_of(dict(manifest), schema, ""))


def _of(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, int | str):
            yield f"{path}: {value!r} is neither a number nor text"
        return
    kind = str(schema["type"])
    if not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        yield f"{path}: {value!r} is no {kind}"
        return
    if isinstance(value, dict):
        yield from _of_object(value, schema, path)
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from _of(one, schema["items"], f"{path}[{index}]")
    elif value not in schema.get("enum", [value]):
        yield f"{path}: {value!r} is none of {schema['enum']}"
    elif isinstance(value, str) and not re.search(str(schema.get("pattern", "")), value):
        yield f"{path}: {value!r} does not match {schema['pattern']}"


def _of_object(value: Mapping[str, Any], schema: Mapping[str, Any], path: str) -> Iterator[str]:
    yield from (f"{path}.{name} is missing" for name in schema.get("required", ()) if name not in value)
    known = schema.get("properties", {})
    for name, one in value.items():
        if path == "" and name == "metadata":
            continue
        rest = schema.get("additionalProperties")
        if name in known:
            yield from _of(one, known[name], f"{path}.{name}")
        elif isinstance(rest, dict):
            yield from _of(one, rest, f"{path}.{name}")
        elif not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield f"{path}.{name} is not a field"


def definitions() -> list[dict[str, Any]]:
    """Return definitions with the same schemas for an API server, and one of a ClusterIssuer that takes any fields."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    found = {name: one["schema"] for name, one in json.loads(FACTS.read_text(encoding="utf-8")).items()}
    found["cert-manager.io/v1 ClusterIssuer"] = {"type": "object", "properties": {"spec": anything}}
    made = []
    for name, schema in found.items():
        group, _, rest = name.partition("/")
        version, kind = rest.split()
        plural = f"{kind.lower()}s"
        version_of = {
            "name": version,
            "served": True,
            "storage": True,
            "subresources": {"status": {}},
            "schema": {
                "openAPIV3Schema": {**schema, "properties": {**schema["properties"], "status": anything}}
            },
        }
        made.append(
            {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": {"name": f"{plural}.{group}"},
                "spec": {
                    "group": group,
                    "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
                    "scope": "Cluster" if kind == "ClusterIssuer" else "Namespaced",
                    "versions": [version_of],
                },
            }
        )
    return made
