"""Checks of a stack: its settings, and what they need from this machine."""

import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from dify_kit.checks import guards, published
from dify_kit.checks.result import Check, Status, first_line
from dify_kit.containers.docker_host import DockerEngine, Engine
from dify_kit.engine.state import FileBackend, StackState
from dify_kit.errors import KitError
from dify_kit.stack import leftovers
from dify_kit.stack import settings as stack_settings
from dify_kit.stack.cluster_objects import cluster_objects
from dify_kit.workspace.files import PROJECT, StackFiles
from infra import hints
from infra.catalogue.releases import CatalogueError, catalogue
from infra.guards import advisories
from infra.settings.gate import CA_FILE, gate_files
from infra.settings.stack import Reading, Settings


def check_settings(
    files: StackFiles, environ: Mapping[str, str] | None = None
) -> tuple[Reading | None, list[Check]]:
    """Read a stack's settings, the values of its secrets included, and check that its files are closed to others.

    Of a stack that does not exist yet, the defaults are read. None where the file cannot be read.
    """
    environ = os.environ if environ is None else environ
    name = f"stack {files.stack}"
    try:
        config = files.config()
        reading = stack_settings.read(files, decrypt=True, pending=stack_settings.MADE_BY_UP, environ=environ)
    except (KitError, OSError, UnicodeDecodeError) as problem:
        hint = problem.hint if isinstance(problem, KitError) else "check owner and mode of the file"
        return None, [Check(name=name, status=Status.FAILED, found=first_line(problem), hint=hint)]
    ours = [key for key in config if key.startswith(f"{PROJECT}:")]
    if not ours:
        found = "not created yet; `make up` creates it"
        return reading, [Check(name=name, status=Status.OK, found=found)]
    checks = [_check_files(files, environ, config, f"{len(ours)} settings in {files.config_file}")]
    if reading.problems:
        wrong = "\n".join(reading.problems)
        checks.append(Check(name="settings", status=Status.FAILED, found=wrong, hint=stack_settings.HINT))
    checks += [Check(name="settings", status=Status.WARNING, found=line) for line in reading.warnings]
    return reading, checks


def _check_files(
    files: StackFiles, environ: Mapping[str, str], config: Mapping[str, object], found: str
) -> Check:
    name = f"stack {files.stack}"
    secret = any(isinstance(value, dict) and "secure" in value for value in config.values())
    passphrase = files.data.passphrase
    elsewhere = bool({"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & environ.keys())
    if secret and not elsewhere and not passphrase.is_file():
        return Check(
            name=name,
            status=Status.FAILED,
            found=f"its secrets are encrypted, and {passphrase} is missing",
            hint="restore that file from your backup, or set PULUMI_CONFIG_PASSPHRASE_FILE",
        )
    open_files = [path for path in (passphrase, files.stored) if _open_to_others(path)]
    if open_files:
        return Check(
            name=name,
            status=Status.WARNING,
            found=f"other users can read {open_files[0]}",
            hint=f"chmod 600 {' '.join(str(path) for path in open_files)}",
        )
    return Check(name=name, status=Status.OK, found=found)


def _open_to_others(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except OSError:
        return False


def images_of(reading: Reading | None) -> str | None:
    """Return the stack's source of images; None when it is unknown."""
    return reading.settings.images if reading and reading.sound("images") else None


def check_leftovers(files: StackFiles, environ: Mapping[str, str] | None = None) -> list[Check]:
    """Check that nothing of an earlier stack is in the way of one that is not created yet; nothing for others."""
    try:
        if files.configured():
            return []
        backend = FileBackend.of(files, environ)
        leftovers.refuse(files, DockerEngine(), backend.read() if backend else StackState())
    except KitError as problem:
        return [Check(name="leftovers", status=Status.FAILED, found=problem.message, hint=problem.hint)]
    return []


def check_guards(files: StackFiles, reading: Reading | None) -> list[Check]:
    """Make the guards of Pulumi's program, those whose settings are sound; nothing where the file cannot be read."""
    if reading is None:
        return []
    checks = []
    try:
        engine = cluster_objects(files) or DockerEngine()
        for name, refusals in guards.found(files, reading, engine):
            checks += [
                Check(name=name, status=Status.FAILED, found=one.problem, hint=guards.hint(one, files))
                for one in refusals
            ]
            if not refusals and (well := _well(name, reading.settings, local=engine.local())):
                checks.append(Check(name=name, status=Status.OK, found=well))
    except KitError as problem:
        checks.append(Check(name="engine", status=Status.FAILED, found=problem.message, hint=problem.hint))
    return checks


def _well(guard: str, settings: Settings, *, local: bool) -> str:
    """Say what a guard without refusals found; empty for one that did not have to look.

    External servers are checked where the engine is `local`, so that this machine reaches what the stack does.
    """
    servers = {
        "database": settings.database,
        "redis": settings.redis,
        "vector store": settings.vector_server,
    }
    if guard in servers:
        server = servers[guard]
        if server is None:
            return ""
        return (
            f"{server.address} admits Dify"
            if local
            else f"{server.address}, not checked: the engine is elsewhere"
        )
    if guard == "images" and settings.images != "preloaded":
        return ""
    return {
        "engine choice": "docker and Pulumi's provider take the same one",
        "volumes": "there are none, or they are this stack's",
        "container names": "nothing else has them",
        "port": f"{settings.bind_address}:{settings.http_port} is free, or this stack's own",
        "images": "all of them are loaded",
        "cluster": "it answers, and has what the stack needs",
    }[guard]


def check_published(files: StackFiles, *, repair: bool = False) -> list[Check]:
    """Request the published address of a running stack as a client does; nothing where none runs.

    ``repair`` restarts the edge when it is healthy inside and does not answer there.
    """
    name = "published address"
    try:
        engine = cluster_objects(files) or DockerEngine()
        where = published.find(files, engine)
        if where is None and (seen := published.public(files)):
            return _check_public(files, engine, seen)
        if where is None or published.edge_of(files.stack, engine) is None:
            return []
        if repair:
            published.ensure(files, engine)
        found = published.problem(where)
    except (KitError, OSError, UnicodeDecodeError) as problem:
        hint = problem.hint if isinstance(problem, KitError) else ""
        return [Check(name=name, status=Status.FAILED, found=first_line(problem), hint=hint)]
    if found:
        command = hints.kit("doctor", "--repair", stack=files.stack)
        hint = f"`{command}` restarts the edge, which publishes the port again"
        said = f"{where} does not answer, although the edge is healthy inside: {found}"
        return [Check(name=name, status=Status.FAILED, found=said, hint=hint)]
    return [Check(name=name, status=Status.OK, found=f"the edge answers at {where}")]


def _check_public(files: StackFiles, engine: Engine, where: published.Published) -> list[Check]:
    """Request the public URL of a stack on a cluster; nothing where it has no pods of the edge that are ready."""
    scale = engine.scales(files.stack).get(published.EDGE)
    if scale is None or not scale.ready:
        return []
    if found := published.problem(where):
        said = f"{where} does not answer from this machine, although the edge is ready: {found}"
        hint = "`kubectl get service edge` in the stack's namespace shows its address; see the way from here to it"
        return [Check(name="public address", status=Status.WARNING, found=said, hint=hint)]
    return [Check(name="public address", status=Status.OK, found=f"the edge answers at {where}")]


def check_release(reading: Reading | None) -> list[Check]:
    """Warn about the known vulnerabilities of the stack's release; nothing for one that is reported already."""
    if not reading or not reading.sound("release", "catalogue", "weaviateVersion"):
        return []
    found = reading.settings.dify
    try:
        newest = next(iter(catalogue(reading.settings.catalogue)))
    except CatalogueError:
        return []
    name, version = "Dify release", found.version
    if not found.advisories:
        return [Check(name=name, status=Status.OK, found=f"{version}, without known advisories")]
    return [
        Check(
            name=name,
            status=Status.WARNING,
            found=line,
            hint=f"back up, then set dify:release, up to {newest}",
        )
        for line in advisories.warnings(found)
    ]


def check_pins(reading: Reading | None) -> list[Check]:
    """Warn of images that are taken by tag from a registry, as the program does."""
    if not reading or not reading.sound("images", "mirror", "imagePins"):
        return []
    from infra.guards import images  # noqa: PLC0415  # imports Pulumi, which takes a second

    return [
        Check(name="images", status=Status.WARNING, found=line) for line in images.warnings(reading.settings)
    ]


def check_gate(reading: Reading | None) -> list[Check]:
    """Check that the gate's provider answers as the gateway needs it; nothing where there is no gate.

    A warning at most: the stack's containers may reach what this machine cannot, and the other way round.
    """
    gate = reading.settings.oidc_gate if reading and reading.sound("oidcGate") else None
    if gate is None:
        return []
    # Imported late: no other check needs the gateway's libraries.
    from dify_gateway.gate_config import GateSettings  # noqa: PLC0415
    from dify_gateway.gate_provider import Provider  # noqa: PLC0415
    from dify_gateway.issuers import IssuerError  # noqa: PLC0415

    settings = GateSettings(
        issuer=gate.issuer,
        ca_file=CA_FILE if gate.ca else "",
        origins=gate.origins,
        client_id=gate.client_id,
        # The discovery document is public.
        client_secret="",
        scopes=gate.scopes,
        email_domains=gate.email_domains,
        groups_claim=gate.groups_claim,
        allowed_groups=gate.allowed_groups,
        session_seconds=gate.session_seconds,
        skew_seconds=0,
    )
    try:
        with tempfile.TemporaryDirectory(prefix="dify-kit-") as directory:
            for file, text in gate_files(gate).items():
                (Path(directory) / file).write_text(text, encoding="utf-8")
            metadata = Provider(settings, Path(directory)).read()
    except IssuerError as problem:
        hint = "`make up` still works, but sign-in fails until then; see docs/guides/console-gate.md"
        return [Check(name="gate", status=Status.WARNING, found=first_line(problem), hint=hint)]
    return [Check(name="gate", status=Status.OK, found=f"people sign in at {metadata.authorization}")]
