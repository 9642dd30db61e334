"""A plan in words, and as a document."""

from collections.abc import Iterator
from typing import Any

from dify_kit.upgrade.journal import Kind
from dify_kit.upgrade.plan import Plan
from infra import hints

_MEBIBYTE = 1 << 20
# Of Dify's own images on two cores, of which a fresh start takes 43 s (`infra.catalogue.health`).
AWAY_SECONDS, STREAM_SECONDS = 45, 60
_SOURCE = "measured on two cores with Dify's own images, docs/guides/upgrade.md"


def document(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON has it."""
    return {
        "stack": plan.stack,
        "from": plan.old.version,
        "to": plan.new.version,
        "data": {"release": plan.written.release, "weaviate": plan.written.weaviate},
        "steps": [
            {"kind": str(one.kind), "release": one.release, "weaviate": one.weaviate} for one in plan.steps
        ],
        "hands": [{"release": one.version, "text": line} for one in plan.passed for line in one.upgrade],
        "services": {"come": come(plan), "go": go(plan)},
        "variables": [
            {"service": one.service, "name": one.name, "becomes": one.renamed, "release": release}
            for one, release in plan.moved
        ],
        "images": {
            "pull": [one.reference for one in plan.pulled],
            "build": [one.reference for one in plan.built],
        },
        "advisories": {
            "closed": [one.id for one in plan.closed],
            "left": [one.id for one in plan.new.advisories],
        },
        "away": {
            "restarts": restarts(plan),
            "seconds": AWAY_SECONDS,
            "streams": STREAM_SECONDS,
            "source": _SOURCE,
        },
        "backup": {
            "folder": str(plan.choice.folder) if plan.choice.backup else "",
            "size": plan.size,
        },
    }


def come(plan: Plan) -> list[str]:
    """Return the services that the new release adds."""
    return sorted(plan.new.services - plan.old.services)


def go(plan: Plan) -> list[str]:
    """Return the services that the new release does not have."""
    return sorted(plan.old.services - plan.new.services)


def restarts(plan: Plan) -> int:
    """Return how often api restarts: once for each release that data goes through."""
    return len({one.release for one in plan.moves})


def lines(plan: Plan) -> Iterator[str]:
    """Yield what an upgrade does, and what it means for those who use the stack."""
    yield f"stack {plan.stack}: Dify {plan.old.version} -> {plan.new.version}"
    for number, step in enumerate(plan.steps, 1):
        yield f"  {number:>2}. {step.text()}{_more(plan, step.kind)}"
    yield from _headed(
        "what the notes of these releases ask of hands, or say:",
        [f"{one.version}: {line}" for one in plan.passed for line in one.upgrade],
    )
    yield from _headed("services that come:", come(plan))
    yield from _headed("services that go:", go(plan))
    yield from _headed("variables:", [one.text(release) for one, release in plan.moved])
    yield from _headed("images to pull:", [one.reference for one in plan.pulled])
    yield from _headed("images to build here:", [one.reference for one in plan.built])
    closed = [f"{one.id}: {one.summary}" for one in plan.closed]
    yield from _headed("known vulnerabilities that this closes:", closed)
    left = [f"{one.id}, closed in {one.fixed_in}: {one.summary}" for one in plan.new.advisories]
    yield from _headed("known vulnerabilities that stay:", left)
    yield from _headed("while it runs:", list(_meanwhile(plan)))
    yield from _headed("the way back:", list(_back(plan)))


def _headed(title: str, rows: list[str]) -> Iterator[str]:
    if rows:
        yield f"  {title}"
        yield from (f"    - {row}" for row in rows)


def _more(plan: Plan, kind: Kind) -> str:
    if kind is Kind.FETCH:
        return f": {len(plan.pulled)}"
    if kind is Kind.BACKUP:
        size = f", at most {plan.size / _MEBIBYTE:.0f} MiB" if plan.size else ""
        return f" into {plan.choice.folder}{size}, and read the archive to its end"
    return ""


def _meanwhile(plan: Plan) -> Iterator[str]:
    times = f"{restarts(plan)} times" if restarts(plan) > 1 else "once"
    if plan.settings.images == "local":
        yield f"api restarts {times}: it does not answer for some seconds, with the stand-in"
    else:
        yield (
            f"api restarts {times}: it does not answer for up to {AWAY_SECONDS} s ({_SOURCE}), and up to "
            f"{STREAM_SECONDS} s more where streamed answers have to end first"
        )
    yield "the migration runs while api of the old release answers; how long it takes depends on the data"
    if plan.choice.backup and plan.settings.own_vector_store in {"weaviate", "qdrant"}:
        yield f"knowledge bases find nothing while the files of {plan.settings.vector_store} are copied"
    if starts := sum(1 for one in plan.moves if one.weaviate):
        yield f"Weaviate restarts {starts} times or more, once for each version; knowledge bases find nothing then"


def _back(plan: Plan) -> Iterator[str]:
    back = hints.kit("rollback", stack=plan.stack)
    if not plan.choice.backup:
        yield f"none by the kit: no backup is made. `{back}` works until the first deployment has changed the data"
        return
    yield f"`{back}`, at any time until the next upgrade: it restores the backup, and what was written after it is lost"
    made = "" if plan.choice.passphrase_file else ", which the kit makes once"
    yield f"the archive opens with the passphrase in {plan.passphrase}{made}: keep both, also of a copy elsewhere"
