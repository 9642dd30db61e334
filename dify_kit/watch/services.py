"""What runs the services of a stack, compared with its state: containers of an engine, or the pods of a cluster."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from dify_kit.containers.docker_host import BROKEN, Container
from dify_kit.containers.seen import Notice, Scale
from dify_kit.engine.recovery import examine
from dify_kit.engine.state import StackState
from dify_kit.watch.report import Pod, Service, Status
from infra import hints
from infra.catalogue.services import SERVICES
from infra.engine import runtime

ENGINE_SECONDS = 10
# Each of them waits for the engine, which counts for a moment.
TOGETHER = 8
MISSING = "missing"
# The first of these states that a pod of a service has is that of the service.
_WORST = ("restarting", "dead", "exited", "created", "removing", "running")
_WORST_HEALTH = ("unhealthy", "starting", "healthy", "")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the platform shows of a stack. `images` are names by id; `scales` by service, empty on an engine."""

    containers: Sequence[Container]
    images: Mapping[str, str]
    scales: Mapping[str, Scale]
    notices: Sequence[Notice]


def describe(status: Status, state: StackState, seen: Seen) -> None:
    """Note each service, and compare what runs with the state."""
    memory = dict(zip([one.id for one in seen.containers], _memory(seen.containers), strict=True))
    rows = [*_containers(status, state, seen, memory), *_scaled(status, state, seen, memory)]
    for row in rows:
        if row.problem:
            _report(status, row)
    jobs = state.outputs.get("jobs") or {}
    expected = {**(state.outputs.get("containers") or {}), **jobs}
    for service in sorted(expected.keys() - {row.service for row in rows}):
        rows.append(
            Service(
                service=service,
                container=str(expected[service]).partition("?")[0],
                job=service in jobs,
                state=MISSING,
                problem="has no container",
            )
        )
        status.add(f"{service} has no container", f"{hints.kit('up', stack=status.stack)} repairs it")
    order = list(SERVICES)
    status.services += sorted(
        rows, key=lambda one: (order.index(one.service) if one.service in order else len(order), one.service)
    )


def _report(status: Status, row: Service) -> None:
    looked = hints.kit("logs", row.service, "--tail", "50", stack=status.stack)
    repair = f"{hints.kit('up', stack=status.stack)} repairs it"
    status.add(f"{row.service} {row.problem}", f"{looked} shows why; {repair}")


def _containers(
    status: Status, state: StackState, seen: Seen, memory: Mapping[str, int]
) -> Iterator[Service]:
    """Yield a row for each container of an engine."""
    alone = [one for one in seen.containers if one.service not in seen.scales]
    orphans = {one.id for one in examine(state, alone, []).orphans}
    for one in alone:
        wrong = _wrong(one)
        if not wrong and one.id in orphans and not status.under_way:
            wrong = _unknown(one.service, state)
        running = one.state == "running" and one.health in {"", "healthy"}
        yield Service(
            service=one.service,
            container=one.name,
            job=one.job,
            state=one.state,
            health=one.health,
            exit_code=one.exit_code,
            restarts=one.restarts,
            image=seen.images.get(one.image, one.image.removeprefix("sha256:")[:12]),
            memory=memory[one.id],
            memory_limit=one.memory_limit,
            wanted=0 if one.job else 1,
            ready=int(running and not one.job),
            problem=wrong,
        )


def _unknown(service: str, state: StackState) -> str:
    expected = {**(state.outputs.get("containers") or {}), **(state.outputs.get("jobs") or {})}
    return "is not the one that the state has" if service in expected else "is not in the state"


def _wrong(container: Container) -> str:
    """Say what is wrong with a container; empty when it is as it should be."""
    wrong = container.sick()
    # The engine starts a service again that ends by itself.
    stopped = not container.job and container.state == "exited"
    return f"{wrong}: it was stopped by hand" if stopped else wrong


def _scaled(status: Status, state: StackState, seen: Seen, memory: Mapping[str, int]) -> Iterator[Service]:
    """Yield a row for each service that has pods, or is to have some."""
    for service, scale in seen.scales.items():
        pods = [one for one in seen.containers if one.service == service]
        # Those that end while others take their places say nothing about the service.
        staying = [one for one in pods if one.state != "removing"] or pods
        yield Service(
            service=service,
            container=scale.workload,
            job=scale.job,
            # A Job that has ended may have no pod any more.
            state=_first(_WORST, [one.state for one in staying]) or ("exited" if scale.job else MISSING),
            health=_first(_WORST_HEALTH, [one.health for one in staying]),
            exit_code=max((one.exit_code for one in staying), default=0),
            restarts=sum(one.restarts for one in staying),
            image=scale.image,
            memory=sum(memory[one.id] for one in pods),
            memory_limit=sum(one.memory_limit for one in pods if one.state == "running"),
            wanted=scale.wanted,
            ready=scale.ready,
            pods=tuple(_pod(one) for one in pods),
            last_warning=next((one.text for one in reversed(seen.notices) if one.service == service), ""),
            problem=_trouble(status, state, scale, staying),
        )


def _pod(one: Container) -> Pod:
    return Pod(
        name=one.name,
        state=one.state,
        health=one.health,
        restarts=one.restarts,
        exit_code=one.exit_code,
        reason=one.reason,
    )


def _first(order: Sequence[str], found: Sequence[str]) -> str:
    return next((one for one in order if one in found), "")


def _trouble(status: Status, state: StackState, scale: Scale, pods: Sequence[Container]) -> str:
    """Say what is wrong with a service of a cluster: a pod, their number, or a change that `up` did not make."""
    sick = next((f"pod {one.name} {wrong}" for one in pods if (wrong := one.sick())), "")
    if scale.wanted > scale.ready:
        why = scale.trouble or sick
        # Pods that start are no problem.
        return (
            "; ".join(filter(None, [f"has {scale.ready} of {scale.wanted} pods ready", why]))
            if (why or not pods)
            else ""
        )
    if scale.job and sick:
        return sick
    return "" if status.under_way else _drift(state, scale)


def _drift(state: StackState, scale: Scale) -> str:
    declared = state.workloads.get(scale.resource)
    if declared is None:
        return "" if scale.resource in state.ids else "is not in the state"
    if not scale.job and declared.replicas not in {None, scale.wanted}:
        return f"was scaled to {scale.wanted} pods outside of the kit, and {declared.replicas} were deployed"
    if declared.image and declared.image != scale.image:
        return f"has image {scale.image}, and {declared.image} was deployed"
    return ""


def _memory(containers: Sequence[Container]) -> list[int]:
    """Return the memory that each container uses, 0 for one that does not run or does not tell."""

    def used(one: Container) -> int:
        if one.state != "running":
            return 0
        try:
            with runtime.runtime(one.id, ENGINE_SECONDS) as workload:
                return workload.memory_bytes()
        except BROKEN:
            return 0

    with ThreadPoolExecutor(TOGETHER) as pool:
        return list(pool.map(used, containers))
