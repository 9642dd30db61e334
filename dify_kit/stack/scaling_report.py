"""The plan of `dify-kit scale` as lines of text."""

from collections.abc import Iterator

from dify_kit.stack.scaling import MIB, Plan
from infra.platforms.kubernetes.demand import CPU, MEMORY, Total
from infra.settings.kubernetes import SCALED

_PARTS = {name: part for part, name in SCALED.items()}


def lines(plan: Plan) -> Iterator[str]:
    """Yield the lines: pods, what they take before and after, room, volumes, connections."""
    yield f"{'':<22}{'before':>10}{'after':>10}"
    for name, (old, new) in plan.counts.items():
        mark = "  *" if old != new else ""
        yield f"{'pods of ' + _PARTS[name]:<22}{old:>10}{new:>10}{mark}"
    yield f"{'pods of the stack':<22}{plan.before.pods:>10}{plan.after.pods:>10}"
    for word in ("requests", "limits"):
        yield _row(f"memory {word}", *(_memory(one, word) for one in (plan.before, plan.after)))
        yield _row(f"CPU {word}", *(_cores(one, word) for one in (plan.before, plan.after)))
    yield _row("database connections", *map(str, plan.connections))
    accepted = "an external server" if plan.accepted is None else f"PostgreSQL accepts {plan.accepted}"
    yield f"at most, of the pools of api and worker; {accepted}"
    if plan.room is None:
        yield "room on the nodes: unknown, as the user of the context may not list nodes and pods"
    else:
        free = f"{plan.room.free[MEMORY] / MIB:.0f} MiB and {plan.room.free[CPU]:.1f} cores are not requested"
        yield f"room on {plan.room.nodes} node(s): for {plan.room.placed} of {plan.room.added} added pod(s); {free}"
    yield from plan.notes


def _row(label: str, before: str, after: str) -> str:
    return f"{label:<22}{before:>10}{after:>10}"


def _memory(total: Total, word: str) -> str:
    found = total.requests if word == "requests" else total.limits
    return f"{found[MEMORY] / MIB:.0f} Mi"


def _cores(total: Total, word: str) -> str:
    found = total.requests if word == "requests" else total.limits
    return f"{found[CPU]:.2f}"


def warnings(plan: Plan) -> Iterator[str]:
    """Yield what may go wrong with it."""
    if plan.room and not plan.room.enough:
        yield (
            f"the nodes have room for {plan.room.placed} of {plan.room.added} added pod(s): the others wait for "
            "another node, and `up` fails after 30 s without one"
        )
    if plan.accepted is not None and plan.connections[1] > max(plan.accepted, plan.connections[0]):
        yield (
            f"api and worker may open {plan.connections[1]} connections, and PostgreSQL accepts {plan.accepted}: raise "
            "dify:postgresMaxConnections, or lower SQLALCHEMY_POOL_SIZE in dify:extraEnv"
        )
