"""The upstreams of the LLM proxy as `dify:llm.upstreams` names them: where requests go, without their keys."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from infra.catalogue.llm_presets import PRESETS, Preset
from infra.settings.ca import read_ca
from infra.settings.origins import DEFAULT_PORTS, host_problem, is_loopback
from infra.settings.reader import Section
from infra.settings.rotations import ROTATED

UPSTREAM_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {"preset": "custom", "baseUrl": "", "caFile": "", "timeoutSeconds": 300}
)
MAX_TIMEOUT = 3600
LOOPBACK_PROBLEM = "is nginx's own container, not this machine"
# Docker's default; `dify-kit keys check` reads it from the engine.
BRIDGE_FIX = (
    "the address that containers reach this machine by, Docker's bridge: http://172.17.0.1:<port>/v1 by default, "
    "else as `docker network inspect bridge` has it"
)
# `dify-kit keys rotate` has these names for other keys.
_RESERVED = frozenset({"signing", "dify", *ROTATED})
_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")


@dataclass(frozen=True, kw_only=True)
class UpstreamAddress:
    """Where requests go. `path` begins with a slash or is empty; `ca` is in PEM, empty for the public ones.

    `ca_file` is the file that `ca` was read from, as the settings name it.
    """

    name: str
    preset: str
    scheme: str
    host: str
    port: int
    path: str
    ca: str
    timeout_seconds: int
    ca_file: str = ""

    @property
    def base_url(self) -> str:
        """The URL of which `/chat/completions` and `/models` are subpaths."""
        port = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}{self.path}"

    @property
    def known(self) -> Preset:
        """What is known about its preset."""
        return PRESETS[self.preset]


def read_upstreams(llm: Section) -> tuple[UpstreamAddress, ...]:
    """Read `dify:llm.upstreams`; `llm` is the section above it."""
    found: list[UpstreamAddress] = []
    for name, value in llm.mapping("upstreams").items():
        key = llm.key(f"upstreams.{name}")
        if not _NAME.fullmatch(name) or name in _RESERVED:
            llm.problems.add(
                key,
                name,
                "cannot name an upstream",
                "use lower-case letters, digits and '_', a letter first, and no name of another key that is rotated: "
                f"{', '.join(sorted(_RESERVED))}",
            )
            continue
        if not isinstance(value, dict):
            llm.problems.add(key, value, "not an object", "use {preset: holysheep}")
            continue
        preset = name if name in PRESETS and "preset" not in value else UPSTREAM_DEFAULTS["preset"]
        one = Section(llm.problems, value, {**UPSTREAM_DEFAULTS, "preset": preset}, f"{key}.")
        one.refuse_unknown()
        found.append(_upstream(name, one))
    return tuple(found)


def _upstream(name: str, section: Section) -> UpstreamAddress:
    preset = section.choice("preset", tuple(PRESETS))
    scheme, host, port, path = _address(section, PRESETS[preset].base_url)
    return UpstreamAddress(
        name=name,
        preset=preset,
        scheme=scheme,
        host=host,
        port=port,
        path=path,
        ca=read_ca(section),
        ca_file=section.text("caFile"),
        timeout_seconds=section.integer("timeoutSeconds", 1, MAX_TIMEOUT),
    )


def _address(section: Section, known: str) -> tuple[str, str, int, str]:
    url = section.text("baseUrl") or known
    fix = "use the URL without /chat/completions, such as https://llm.example.com/v1"
    nowhere = ("https", "invalid.example", 443, "")
    if not url:
        section.problems.add(
            section.key("baseUrl"), url, "is empty, and this preset has none of its own", fix
        )
        return nowhere
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError:
        section.problems.add(section.key("baseUrl"), url, "is not a URL", fix)
        return nowhere
    host, path = parts.hostname or "", parts.path.rstrip("/")
    if parts.scheme not in DEFAULT_PORTS or "@" in parts.netloc or parts.query or parts.fragment:
        problem = "must be an http(s) URL without a user name or query"
    elif ":" in host:
        problem = "IPv6 addresses are not supported here"
    elif not _PATH.fullmatch(path):
        problem = "its path has characters other than letters, digits, '.', '_', '~' and '-'"
    elif wrong := host_problem(host):
        problem = wrong
    elif is_loopback(host):
        problem = LOOPBACK_PROBLEM
        fix = f"use {BRIDGE_FIX}, and let the upstream listen there"
    elif parts.scheme == "http" and not _is_near(host):
        problem = "the key would be sent in plain text"
        fix = "use https; plain http is for a container's name or a private address"
    else:
        return parts.scheme, host, port, path
    section.problems.add(section.key("baseUrl"), url, problem, fix)
    return nowhere


def _is_near(host: str) -> bool:
    """Whether a host is a container's name, or an address that is not public."""
    if "." not in host:
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False
