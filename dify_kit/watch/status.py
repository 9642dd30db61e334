"""Finds how a stack is: its services, its address, its certificate, its live configurations, its last deployment.

Every part is found by itself. What cannot be found is a problem with its hint, and the rest is shown all the same.
"""

import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any

from dify_kit.checks import published
from dify_kit.checks.result import Status as Result
from dify_kit.checks.stack import check_settings
from dify_kit.containers.docker_host import Container, DockerEngine, Engine
from dify_kit.engine.cli import Pulumi
from dify_kit.engine.processes import Run
from dify_kit.engine.state import FileBackend, StackState, Update
from dify_kit.errors import KitError
from dify_kit.stack import llm_usage, rotation
from dify_kit.watch import certificate, traffic
from dify_kit.watch.limits import limits_of
from dify_kit.watch.report import Address, LastUpdate, Revision, Status
from dify_kit.watch.services import Seen, describe
from dify_kit.workspace.files import StackFiles
from infra import hints
from infra.catalogue.services import CERTBOT, GATEWAY, LLM_EDGE, NGINX
from infra.settings.stack import Reading
from infra.settings.tls import CERT_MANAGER

# A certificate that renews itself has been renewed by then.
DAYS_LEFT = 14
UPDATES = 20
# A day, and what a backup of a large stack may take.
OVERDUE = timedelta(hours=30)


def gather(
    files: StackFiles,
    environ: Mapping[str, str] | None = None,
    *,
    connect: Callable[[], Engine] = DockerEngine,
) -> Status:
    """Return the status of a stack that is configured. Problems are part of it."""
    environ = os.environ if environ is None else environ
    status = Status(stack=files.stack, kit=version("dify-kit"))
    reading, checks = check_settings(files, environ)
    for check in checks:
        if check.status is Result.FAILED:
            status.add(f"{check.name}: {check.found}", check.hint)
    run = Run.recall(files.data.runs / f"{files.stack}.json")
    status.under_way = run.verb if run and run.processes() else ""
    state = _state(files, environ, status)
    _deployed(status, state, reading)
    _rotations(status, state, reading)
    status.last_update = _last_update(files, environ, status)
    status.last_backup = _last_backup(files)
    _overdue(status, reading, datetime.now(tz=UTC))
    try:
        engine = connect()
        seen = Seen(
            containers=engine.workloads(files.stack),
            images=engine.image_names(),
            scales=engine.scales(files.stack),
            notices=engine.notices(files.stack),
        )
    except KitError as problem:
        status.add(problem.message, problem.hint)
        return status
    describe(status, state, seen)
    if not status.deployed and not seen.containers:
        status.add(f"stack {files.stack} is not deployed", f"{hints.kit('up', stack=files.stack)} deploys it")
        return status
    _address(status, files, engine, reading, state.outputs)
    running: dict[str, list[Container]] = {}
    for one in seen.containers:
        if one.state == "running":
            running.setdefault(one.service, []).append(one)
    _revisions(status, state.outputs, running)
    _upstreams(status, state.outputs, running)
    status.scraped = traffic.scrape(running, files.stack)
    status.traffic = traffic.traffic(status.scraped)
    return status


def _state(files: StackFiles, environ: Mapping[str, str], status: Status) -> StackState:
    """Return the state; an empty one where it cannot be read, which is a problem."""
    try:
        backend = FileBackend.of(files, environ)
        return backend.read() if backend else Pulumi(files=files).state()
    except KitError as problem:
        status.add(problem.message, problem.hint)
        return StackState()


def _deployed(status: Status, state: StackState, reading: Reading | None) -> None:
    """Note what the exports say of the deployment; before there is one, the release of the settings."""
    outputs = state.outputs
    status.deployed = bool(outputs.get("containers"))
    status.deployed_by = str(outputs.get("kit") or "")
    settings = reading.settings if reading else None
    status.release = str(outputs.get("release") or (settings.release if settings else ""))
    status.images = str(outputs.get("images") or (settings.images if settings else ""))
    status.stand_in = bool(outputs.get("standIn"))
    status.limits = limits_of(outputs)
    if url := str(outputs.get("publicUrl") or ""):
        status.address = Address(url=url)


def _rotations(status: Status, state: StackState, reading: Reading | None) -> None:
    """Note the rotations of secrets that are in the settings and not deployed, unless a command deploys them."""
    if reading is None or not status.deployed or status.under_way:
        return
    for name in rotation.incomplete(reading.settings, state.outputs):
        again = hints.kit("keys", "rotate", name, stack=status.stack)
        status.add(
            f"the rotation of {name} is not complete: not every service has the new value",
            f"{again} completes it, and so does {hints.kit('up', stack=status.stack)}",
        )


def _last_backup(files: StackFiles) -> datetime | None:
    """Return when this machine last backed the stack up; None without a record that can be read."""
    try:
        return datetime.fromisoformat(json.loads(files.data.backup(files.stack).read_bytes())["created"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _overdue(status: Status, reading: Reading | None, now: datetime) -> None:
    """Note that `dify:backup` plans a backup each day and that the last one is older than that."""
    plan = reading.settings.backup if reading else None
    if plan is None or not status.deployed or (status.last_backup and now - status.last_backup < OVERDUE):
        return
    what = (
        f"is {(now - status.last_backup).total_seconds() / 3600:.0f} hours old"
        if status.last_backup
        else "does not exist"
    )
    status.add(
        f"the last backup {what}, and dify:backup plans one each day at {plan.at} UTC",
        f"{hints.kit('backup', stack=status.stack)} makes one, {hints.kit('backup', 'timer', stack=status.stack)} "
        "a timer",
    )


def _last_update(files: StackFiles, environ: Mapping[str, str], status: Status) -> LastUpdate | None:
    """Return the last `pulumi up`. One that failed is a problem, unless a command is at work."""
    try:
        found = next((one for one in _updates(files, environ) if one.kind == "update"), None)
    except KitError as problem:
        status.add(problem.message, problem.hint)
        return None
    if found is None:
        return None
    if found.result != "succeeded" and not status.under_way:
        log = files.data.logs / f"{files.stack}-up.log"
        again = hints.kit("up", stack=files.stack)
        status.add(
            f"the last `up` ended as {found.result or 'unknown'}",
            f"{again} continues from there; Pulumi's output: {log}",
        )
    return LastUpdate(result=found.result, ended=found.ended, changes=found.changes)


def _updates(files: StackFiles, environ: Mapping[str, str]) -> list[Update]:
    backend = FileBackend.of(files, environ)
    if backend:
        return backend.last_updates(UPDATES)
    printed = Pulumi(files=files).run("stack", "history", "--json", "--page-size", str(UPDATES), check=False)
    return [Update.parse(one) for one in json.loads(printed.stdout)] if printed.returncode == 0 else []


def _address(
    status: Status,
    files: StackFiles,
    engine: Engine,
    reading: Reading | None,
    outputs: Mapping[str, Any],
) -> None:
    """Request the published address as `up` does, and look at the certificate where TLS is on."""
    url = str(outputs.get("publicUrl") or (reading.settings.public_url if reading else ""))
    try:
        where = published.find(files, engine)
        before = None if where else published.public(files)
        edge = published.edge_of(files.stack, engine)
    except KitError as problem:
        status.add(problem.message, problem.hint)
        return
    asked = where or before
    if asked is None:
        status.address = Address(url=url)
        return
    found = published.problem(asked)
    status.address = Address(url=url, published=str(asked), answers=not found)
    if found:
        fix = ("doctor", "--repair") if edge else ("up",)
        hint = f"{hints.kit(*fix, stack=files.stack)} restarts the edge"
        if before:
            hint = "`kubectl get service edge` in the stack's namespace shows its address; see the way from here to it"
        status.add(f"{asked} does not answer: {found}", hint)
    tls = outputs.get("tls") or {}
    if not tls.get("httpsPort"):
        return
    source = str(tls.get("mode") or "")
    port = before.port if before else int(tls["httpsPort"])
    try:
        shown = certificate.presented(asked.address, port, asked.host, source, asked.preface)
    except (OSError, ValueError) as problem:
        status.add(f"port {port} presents no certificate: {problem}", _renewal(source, files.stack))
        return
    status.certificate = shown
    if shown.ends <= datetime.now(tz=UTC):
        status.add(f"the certificate ended on {shown.ends:%Y-%m-%d}", _renewal(source, files.stack))
    elif shown.days_left < DAYS_LEFT:
        status.add(f"the certificate ends in {shown.days_left} days", _renewal(source, files.stack))


def _renewal(source: str, stack: str) -> str:
    if source == "acme":
        return (
            f"{hints.kit('logs', CERTBOT, '--tail', '50', stack=stack)} shows why certbot does not renew it"
        )
    if source == CERT_MANAGER:
        return "`kubectl describe certificate edge` in the stack's namespace shows why cert-manager does not renew it"
    if source == "files":
        return f"{hints.assign('tlsCertificate', stack=stack, stdin='fullchain.pem')} takes another one, tlsKey its key"
    return f"{hints.kit('up', stack=stack)} makes another one"


def _revisions(status: Status, outputs: Mapping[str, Any], running: Mapping[str, list[Container]]) -> None:
    """Compare the live configurations with those that were deployed last."""
    readers = {NGINX: _of_edge, LLM_EDGE: _of_edge, GATEWAY: _of_gateway}
    keys = {NGINX: "edgeRevision", LLM_EDGE: "llmEdgeRevision", GATEWAY: "gatewayRevision"}
    for service, key in keys.items():
        deployed = str(outputs.get(key) or "")
        if not deployed or service not in running:
            continue
        try:
            # Of several pods, each has its own.
            found = list(dict.fromkeys(readers[service](one.id) for one in running[service]))
        except Exception as problem:  # noqa: BLE001  # a container may stop at this moment, and says so in many ways
            status.add(f"{service} does not tell its revision: {str(problem).splitlines()[0]}")
            continue
        seen = Revision(deployed=deployed, running=",".join(found))
        status.revisions[service] = seen
        if not seen.same and not status.under_way:
            what = f"runs revision {seen.running}" if seen.running else "names no revision"
            status.add(
                f"{service} {what}, and {deployed} was deployed",
                f"{hints.kit('up', stack=status.stack)} brings it back",
            )


def _of_edge(container: str) -> str:
    from infra.resources.edge_container import EdgeContainer  # noqa: PLC0415

    return EdgeContainer(container).running()


def _of_gateway(container: str) -> str:
    from infra.catalogue.container_paths import GATEWAY_DIRECTORY  # noqa: PLC0415
    from infra.resources.gateway_config import GatewayContainer  # noqa: PLC0415  # imports Pulumi: a second

    return ",".join(GatewayContainer(container, GATEWAY_DIRECTORY).health().revisions)


def _upstreams(status: Status, outputs: Mapping[str, Any], running: Mapping[str, list[Container]]) -> None:
    """Note the failures of the LLM proxy's upstreams in this month. They are no problem: another upstream may serve."""
    counting = running.get(LLM_EDGE) or running.get(NGINX)
    if not outputs.get("llm") or not counting:
        return
    try:
        found = llm_usage.of_container(counting[0].id, status.stack)
    except (KitError, ValueError, KeyError):
        # A revision that does not answer is reported already.
        return
    failures = found["upstreams"].get(f"{datetime.now(tz=UTC):%Y-%m}") or {}
    status.upstreams = {
        name: {code: int(times) for code, times in sorted(one.items())}
        for name, one in sorted(failures.items())
    }
