"""Checks of a stack: its settings, and what they need from this machine."""

import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from dify_kit.checks import preflight, published
from dify_kit.checks.result import Check, Status, first_line
from dify_kit.containers.docker_host import DockerEngine
from dify_kit.errors import KitError
from dify_kit.stack import settings as stack_settings
from dify_kit.stack.create import loaded_names
from dify_kit.workspace.files import PROJECT, StackFiles
from infra.catalogue.releases import CatalogueError, catalogue
from infra.settings.gate import CA_FILE, gate_files
from infra.settings.stack import Reading


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


def check_loaded(reading: Reading | None, have: Callable[[list[str]], list[str]]) -> list[Check]:
    """Check that the images of a preloaded stack are in the engine; nothing for others.

    ``have`` returns those of the names that the engine has. `make preview` checks the images of optional parts.
    """
    if not reading or images_of(reading) != "preloaded" or not reading.sound("release", "vectorStore"):
        return []
    try:
        names = loaded_names(reading.settings.dify, reading.settings.vector_store)
        missing = sorted(set(names) - set(have(names)))
    except KitError as problem:
        return [Check(name="images", status=Status.FAILED, found=problem.message, hint=problem.hint)]
    if missing:
        return [
            Check(
                name="images",
                status=Status.FAILED,
                found=f"{len(missing)} of {len(names)} are not in the engine: {', '.join(missing)}",
                hint="`dify-kit images load` an archive of `dify-kit images save`; `make preview` prints the commands",
            )
        ]
    return [Check(name="images", status=Status.OK, found=f"{len(names)} images are loaded")]


def check_port(reading: Reading | None) -> list[Check]:
    """Check that the stack's ports are free or its own; nothing for settings that are reported already."""
    if not reading or not reading.sound("bindAddress", "httpPort", "httpsPort", "tls"):
        return []
    settings = reading.settings
    try:
        preflight.check_port(settings, DockerEngine())
    except KitError as problem:
        return [Check(name="port", status=Status.FAILED, found=problem.message, hint=problem.hint)]
    where = f"{settings.bind_address}:{settings.http_port}"
    return [Check(name="port", status=Status.OK, found=f"{where} is free, or this stack's own")]


def check_published(files: StackFiles, *, repair: bool = False) -> list[Check]:
    """Request the published address of a running stack as a client does; nothing where none runs.

    ``repair`` restarts the edge when it is healthy inside and does not answer there.
    """
    name = "published address"
    try:
        engine = DockerEngine()
        where = published.find(files, engine)
        if where is None or published.edge_of(files.stack, engine) is None:
            return []
        if repair:
            published.ensure(files, engine)
        found = published.problem(where)
    except (KitError, OSError, UnicodeDecodeError) as problem:
        hint = problem.hint if isinstance(problem, KitError) else ""
        return [Check(name=name, status=Status.FAILED, found=first_line(problem), hint=hint)]
    if found:
        hint = f"`dify-kit doctor --repair --stack {files.stack}` restarts the edge, which publishes the port again"
        said = f"{where} does not answer, although the edge is healthy inside: {found}"
        return [Check(name=name, status=Status.FAILED, found=said, hint=hint)]
    return [Check(name=name, status=Status.OK, found=f"the edge answers at {where}")]


def check_release(reading: Reading | None) -> list[Check]:
    """Warn about the known vulnerabilities of the stack's release; nothing for one that is reported already."""
    from infra.guards.advisories import warnings  # noqa: PLC0415  # imported late: it imports Pulumi

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
        for line in warnings(found)
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
