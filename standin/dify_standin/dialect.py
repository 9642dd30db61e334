"""The differences between releases in events, bodies and headers. Sources: docs/reference/stand-in.md."""

from dataclasses import dataclass

from dify_standin.config import release


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One release's order of events, bodies and headers.

    `opening_ping`: a stream begins with a ping. `finishes_last`: `workflow_finished` comes after `message_end`.
    `speaks_first`: text that is known when the run begins comes before its first node. `system_in_start`: the
    start node passes the system's variables on. `unprocessable`: malformed input of the console is a 422.
    `deletes_by_query`: DELETE of a model reads the query, and not a body. `model_summary`: the routes of plugins and
    providers that came with 1.17. `import_warnings`: the fields of an import's result that came with it.
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
    unprocessable: bool
    deletes_by_query: bool
    model_summary: bool
    import_warnings: bool


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
        system_in_start=not since_1_14,
        start_reason=since_1_14,
        reasoning=since_1_17,
        vary_cookie=since_1_17,
        input_placeholder=since_1_17,
        upload_reference=since_1_17,
        # Earlier releases send the placeholder itself.
        too_large_message="" if since_1_17 else "File size exceeded. {message}",
        pydantic="2.12" if since_1_14 else "2.11",
        openapi=since_1_17,
        unprocessable=since_1_17,
        deletes_by_query=since_1_17,
        model_summary=since_1_17,
        import_warnings=since_1_17,
    )
