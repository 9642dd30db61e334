"""The differences between releases in events, bodies and headers. Sources: docs/reference/stand-in.md."""

from dataclasses import dataclass

from dify_standin.config import release


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One release's order of events, bodies and headers.

    `opening_ping`: a stream begins with a ping. `finishes_last`: `workflow_finished` comes after `message_end`.
    `speaks_first`: text that is known when the run begins comes before its first node. `system_in_start`: the
    start node passes the system's variables on.
    """

    opening_ping: bool
    finishes_last: bool
    speaks_first: bool
    system_in_start: bool
    start_reason: bool
    reasoning: bool
    vary_cookie: bool
    input_placeholder: bool
    upload_reference: bool
    too_large_message: str
    pydantic: str
    openapi: bool


def number(version: str) -> tuple[int, ...]:
    """Return a version as numbers that can be compared."""
    return tuple(int(part) for part in version.split("."))


def dialect() -> Dialect:
    """Return the dialect of this container's release."""
    version = number(release())
    since_1_14, since_1_17 = version >= (1, 14), version >= (1, 17)
    return Dialect(
        opening_ping=since_1_14,
        finishes_last=since_1_14,
        speaks_first=since_1_17,
        system_in_start=not since_1_17,
        start_reason=since_1_17,
        reasoning=since_1_17,
        vary_cookie=since_1_17,
        input_placeholder=since_1_17,
        upload_reference=since_1_17,
        # Earlier releases send the placeholder itself.
        too_large_message="" if since_1_17 else "File size exceeded. {message}",
        pydantic="2.12" if since_1_17 else "2.11",
        openapi=since_1_17,
    )
