"""The routes of nginx's templates, as their container's entrypoint would write them out."""

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import crossplane

from dify_kit.releases.topology import Route

# What the entrypoint hands to envsubst; nginx's own variables are in lower case.
_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}|\$([A-Z][A-Z0-9_]*)")
_NGINX_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


class RouteError(Exception):
    """A template that nginx would refuse, or whose target is unknown. The message names file and place."""


def read(directory: Path, variables: Mapping[str, str | None]) -> tuple[Route, ...]:
    """Return the locations that pass requests on, in the order of the templates below `directory`.

    `variables` are those of nginx's container; others are empty, as envsubst makes them. Raises RouteError.
    """
    templates = sorted(directory.rglob("*.template")) if directory.is_dir() else []
    return tuple(route for template in templates for route in _routes(template, variables))


def _routes(template: Path, variables: Mapping[str, str | None]) -> Iterator[Route]:
    text = _VARIABLE.sub(
        lambda match: variables.get(match[1] or match[2]) or "", template.read_text(encoding="utf-8")
    )
    with tempfile.NamedTemporaryFile("w", suffix=".conf", encoding="utf-8") as rendered:
        rendered.write(text)
        rendered.flush()
        payload = crossplane.parse(
            rendered.name, single=True, check_ctx=False, check_args=False, comments=False
        )
    if payload["errors"]:
        first = payload["errors"][0]
        raise RouteError(f"{template}, line {first['line']}: {str(first['error']).split(' in /')[0]}")
    yield from _locations(payload["config"][0]["parsed"], {}, template)


def _locations(block: list[Any], outer: Mapping[str, str], template: Path) -> Iterator[Route]:
    known = dict(outer)
    for directive in block:
        if directive["directive"] == "set":
            name, value = directive["args"]
            known[name.removeprefix("$")] = value
    for directive in block:
        inner = directive.get("block")
        if directive["directive"] == "location" and inner is not None:
            location = " ".join(directive["args"])
            service = _service(inner, known, f"{template}: location {location}")
            if service:
                yield Route(location=location, service=service)
        if inner:
            yield from _locations(inner, known, template)


def _service(block: list[Any], outer: Mapping[str, str], where: str) -> str | None:
    """Return the host that a location passes requests to, None where it answers by itself."""
    known = {**outer, **{one["args"][0][1:]: one["args"][1] for one in block if one["directive"] == "set"}}
    passes = [one["args"][0] for one in block if one["directive"] == "proxy_pass"]
    if not passes:
        return None

    def value(match: re.Match[str]) -> str:
        if match[1] not in known:
            raise RouteError(f"{where}: proxy_pass {passes[0]}: ${match[1]} is set nowhere")
        return str(known[match[1]])

    host = urlsplit(_NGINX_VARIABLE.sub(value, passes[0])).hostname
    if not host:
        raise RouteError(f"{where}: proxy_pass {passes[0]} names no service")
    return host
