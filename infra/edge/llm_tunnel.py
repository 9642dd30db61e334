"""How nginx sends the LLM proxy's requests through the proxy of `dify:outbound`: a tunnel that njs opens (CONNECT)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import pulumi

from infra.settings.llm import Llm
from infra.settings.outbound import CREDENTIALS, Proxy
from infra.settings.roots import roots

# Relative to nginx.conf. The master process reads the first one (mode 0400) and passes it to njs.
SECRETS_FILE = "llm/tunnel.json"
ROOTS_FILE = "llm/roots.pem"


@dataclass(frozen=True, kw_only=True)
class Tunnel:
    """The proxy as the templates read it, as `edge.llm.tunnel`. `digest` changes with its user name and password."""

    address: str
    digest: str
    secrets_file: str = SECRETS_FILE


def proxy_of(llm: Llm) -> Proxy | None:
    """Return the proxy that nginx itself uses; None without one, and where LiteLLM sends the requests."""
    return llm.outbound.proxy if llm.outbound and not llm.litellm else None


def tunnel(llm: Llm) -> Tunnel | None:
    """Return what the templates need for a tunnel, None where no upstream is behind one."""
    proxy = proxy_of(llm)
    if proxy is None or not any(proxy.passes(one.host) for one in llm.upstreams):
        return None
    return Tunnel(address=proxy.address, digest=proxy.login.digest if proxy.login else "")


def public_files(llm: Llm) -> Mapping[str, str]:
    """Return the root certificates of upstreams without a CA of their own, where `dify:outbound` adds one."""
    if not llm.outbound or not llm.outbound.ca or llm.litellm:
        return MappingProxyType({})
    return MappingProxyType({ROOTS_FILE: roots(llm.outbound)})


def private_files(llm: Llm) -> Mapping[str, pulumi.Output[str]]:
    """Return the file with the header that the proxy requires, by its path relative to nginx.conf."""
    proxy = proxy_of(llm)
    if proxy is None or tunnel(llm) is None:
        return MappingProxyType({})
    header = proxy.login.header if proxy.login else pulumi.Output.from_input("")
    return MappingProxyType({SECRETS_FILE: header.apply(_text)})


def hidden_files(llm: Llm) -> Mapping[str, str]:
    """Return the same file for display."""
    proxy = proxy_of(llm)
    if proxy is None or tunnel(llm) is None:
        return MappingProxyType({})
    return MappingProxyType({SECRETS_FILE: _text(f"<dify:{CREDENTIALS}>" if proxy.login else "")})


def _text(header: str) -> str:
    return json.dumps({"authorization": header})
