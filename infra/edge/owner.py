"""The owner of the LLM proxy's counts, where nginx has several pods or is replaced pod by pod.

`templates/nginx/http/owner.conf.j2` says how nginx and the owner work together. Both have the same image and
the same templates: `passing` and `owning` in `infra.edge.roles` are what each of them reads.
"""

from dataclasses import dataclass

from infra.catalogue import ports
from infra.catalogue.services import LLM_EDGE

# Templates and scripts of pods that pass requests to the owner.
PASSING = frozenset({"nginx/http/owner.conf.j2", "nginx/parts/owner.conf.j2", "nginx/njs/owner.js"})
# That of the owner.
OWNING = frozenset({"nginx/servers/owner.conf.j2"})
# What the owner has no clients for.
NOT_OWNED = frozenset(
    {
        *(f"nginx/servers/{name}.conf.j2" for name in ("dify", "redirect", "unknown", "unknown_tls", "llm")),
        *(f"nginx/servers/{name}.conf.j2" for name in ("gate_check", "starting")),
        "nginx/stream/clients.conf.j2",
        "nginx/starting/services.json.j2",
        "nginx/http/traffic.conf.j2",
        "nginx/parts/traffic.conf.j2",
        "nginx/njs/traffic.js",
        "nginx/traffic/tables.json.j2",
    }
)
CONNECT_SECONDS = 1
# The owner before gets 35 s to end, and the next one starts in about 10 s.
HOLD_SECONDS = 60
# An owner that is about to end asks for the end of each connection for 5 s: none is idle for as long.
IDLE_SECONDS = 3

# By which nginx tells itself that a request may be sent. No client receives it.
FOUND_STATUS = 418


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The owner as the templates read it, as `edge.owner`. `here`: these files are its own.

    `inside_port` is for requests from inside the stack. A request waits `hold_seconds` for an owner that cannot be
    connected to.
    """

    here: bool = False
    host: str = LLM_EDGE
    port: int = ports.EDGE_OWNER
    inside_port: int = ports.EDGE_OWNER_INSIDE
    connect_seconds: int = CONNECT_SECONDS
    hold_seconds: int = HOLD_SECONDS
    idle_seconds: int = IDLE_SECONDS
    found_status: int = FOUND_STATUS


def belongs(template: str, owner: Owner | None) -> bool:
    """Tell whether a template or script is a part of the files of nginx; `owner` is that of its context."""
    if owner is None:
        return template not in PASSING | OWNING
    return template not in (PASSING | NOT_OWNED if owner.here else OWNING)
