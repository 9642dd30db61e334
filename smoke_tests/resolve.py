"""`--resolve`: connects to an address before DNS has it, as curl's option of the same name does."""

import ipaddress
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

PORTS = range(1, 65536)
_FORM = re.compile(r"(?P<host>[^:\[\]]+):(?P<port>\d{1,5}):(?P<address>\[[0-9A-Fa-f:.]+\]|[0-9A-Fa-f:.]+)")

# (host, port) -> address.
Resolved = Mapping[tuple[str, int], str]


def read_resolve(values: Sequence[str]) -> Resolved:
    """Return the addresses of `HOST:PORT:ADDRESS`. Raises ValueError that names the wrong one."""
    found: dict[tuple[str, int], str] = {}
    for value in values:
        parts = _FORM.fullmatch(value)
        if parts is None or int(parts["port"]) not in PORTS or not _is_address(parts["address"]):
            raise ValueError(
                f"{value!r} is not HOST:PORT:ADDRESS; for example dify.example.com:443:203.0.113.7"
            )
        found[parts["host"].lower(), int(parts["port"])] = parts["address"].strip("[]")
    return found


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def browser_rules(resolved: Resolved, host: str) -> str:
    """Return Chromium's rules for the same addresses; of all other names only `host` resolves."""
    rules = [
        f"MAP {name}:{port} {f'[{address}]' if ':' in address else address}:{port}"
        for (name, port), address in resolved.items()
    ]
    # A rule of the second kind would switch off those above for its host.
    usual = [] if any(name == host.lower() for name, _ in resolved) else [f"EXCLUDE {host}"]
    return ", ".join([*rules, "MAP * ~NOTFOUND", *usual])


@contextmanager
def resolving(resolved: Resolved) -> Iterator[None]:
    """Resolve these names to their addresses in this process; every other name as usual."""
    if not resolved:
        yield
        return
    usual = socket.getaddrinfo
    socket.getaddrinfo = _with(usual, resolved)
    try:
        yield
    finally:
        socket.getaddrinfo = usual


def _with(usual: Callable[..., Any], resolved: Resolved) -> Callable[..., Any]:
    def getaddrinfo(host: Any, port: Any, *more: Any, **options: Any) -> Any:  # noqa: ANN401  # as socket's
        name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
        number = int(port) if str(port).isdigit() else -1
        return usual(resolved.get((name.lower(), number), host), port, *more, **options)

    return getaddrinfo
