"""The commands about releases of Dify: release list, check, import."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import pulumi
import typer
from rich.console import Console
from rich.table import Column, Table

from dify_kit.app import COMMANDS, Group, app
from dify_kit.errors import UsageError
from dify_kit.releases import compare, completeness, compose, importing, kit, reasons
from dify_kit.releases.compare import Difference
from dify_kit.releases.reasons import Reason
from dify_kit.releases.topology import Topology
from dify_kit.talk import say, warn
from infra import hints
from infra.catalogue import releases
from infra.catalogue.project import declared
from infra.catalogue.releases import CatalogueError, Release

release = typer.Typer(
    cls=Group,
    name="release",
    help=COMMANDS["release"],
    no_args_is_help=True,
)
app.add_typer(release)

UNEXPLAINED = 1
WIDTH = 160
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Catalogue = Annotated[
    Path | None,
    typer.Option(
        "--catalogue", metavar="DIR", help="A folder of your own releases, as dify:catalogue names it."
    ),
]


@release.command(name="list")
def list_releases(catalogue: Catalogue = None, as_json: Json = False) -> None:
    """List the releases that a stack may name, the newest first."""
    known = _catalogue(catalogue)
    default = str(declared()["release"]["default"])
    rows = [
        {
            "release": version,
            "default": version == default,
            "api": f"{one.images['api'].repository}:{one.images['api'].tag}",
            "facts": one.facts or version,
            "unknown": len(one.unknown),
            "advisories": [advisory.id for advisory in one.advisories],
            "file": _short(one.file),
        }
        for version, one in known.items()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(
        *(
            Column(name, overflow="fold")
            for name in ("release", "variables of", "advisories", "to look up", "file")
        )
    )
    for row in rows:
        table.add_row(
            f"{row['release']}{' (default)' if row['default'] else ''}",
            str(row["facts"]),
            ", ".join(map(str, row["advisories"])),  # type: ignore[call-overload]  # a list of texts
            str(row["unknown"] or ""),
            str(row["file"]),
        )
    _print(table)


@release.command()
def check(  # noqa: PLR0917  # Typer calls it by name
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PATH]",
            help="Dify's compose folder (`docker`), to compare with; or a catalogue file, to see what it lacks.",
        ),
    ] = None,
    version: Annotated[
        str,
        typer.Option(
            "--release",
            metavar="VERSION",
            help="The release to compare the folder with. [default: the folder's own]",
        ),
    ] = "",
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="FILE", help="A catalogue file to compare the folder with."),
    ] = None,
    catalogue: Catalogue = None,
    every: Annotated[
        bool, typer.Option("--all", help="Show each difference that has a reason, not their number.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare an official compose folder with what the kit deploys, or say what a catalogue file lacks.

    Exits with 1 for a difference without a reason, or a file that lacks something; with 2 for what cannot be read.
    """
    if version and against:
        raise UsageError("--release and --against name two things to compare with", "give one of them")
    if path is not None and path.is_dir():
        _check_folder(path, version, against, catalogue, every=every, as_json=as_json)
        return
    file = path or against or _release(version or str(declared()["release"]["default"]), catalogue).file
    _check_file(file, as_json=as_json)


@release.command(name="import")
def import_release(  # noqa: PLR0917  # Typer calls it by name
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Dify's compose folder (`docker`) of the release.")
    ],
    version: Annotated[str, typer.Option("--version", metavar="X.Y.Z", help="The release.")],
    settings: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Typed settings of its api (JSON schema of each).")
    ] = None,
    daemon: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings of its plugin daemon, JSON.")
    ] = None,
    base: Annotated[
        str,
        typer.Option(
            metavar="VERSION", help="Where the rest comes from. [default: the newest not above --version]"
        ),
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="<VERSION>.yaml to write. [default: stdout]"),
    ] = None,
    catalogue: Catalogue = None,
) -> None:
    """Make a catalogue file of a release from its compose folder, and list what it could not know."""
    if not _is_version(version):
        raise UsageError(f"--version {version}: it is three numbers such as 1.18.0")
    if out and out.name != f"{version}.yaml":
        raise UsageError(f"--out {out}: a catalogue file is called {version}.yaml")
    if out and out.exists():
        raise UsageError(f"{out} is there already", "remove it, or write elsewhere and compare")
    known = _catalogue(catalogue)
    made = importing.imported(
        _read(folder),
        version,
        _release(base, catalogue) if base else _nearest(version, known),
        _reasons(),
        settings=_facts(settings),
        daemon=_facts(daemon),
    )
    problems = _problems_of(made.text, version)
    if out:
        out.write_text(made.text, encoding="utf-8")
        say(f"wrote {out}")
    else:
        typer.echo(made.text, nl=False)
    for line in made.unknown:
        say(f"  unknown: {line}")
    for line in problems:
        warn(line)
    left = f"; `{hints.kit('release', 'check', str(out))}` says what is left" if out else ""
    say(f"{len(made.unknown)} things to look up{left}")
    if problems:
        raise typer.Exit(UNEXPLAINED)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A folder against a release: each difference with its reason, and whether the release is in the catalogue."""

    release: Release
    catalogued: bool
    found: list[tuple[Difference, Reason | None]]

    @property
    def unexplained(self) -> list[Difference]:
        """The differences without a reason."""
        return [difference for difference, reason in self.found if reason is None]

    def document(self) -> dict[str, Any]:
        """Return everything as JSON has it."""
        return {
            "release": self.release.version,
            "catalogued": self.catalogued,
            "unexplained": len(self.unexplained),
            "to_look_up": list(self.release.unknown),
            "differences": [
                {**asdict(difference), "reason": reason.text if reason else None}
                for difference, reason in self.found
            ],
        }


def compared(folder: Topology, one: Release, *, catalogued: bool = True) -> Comparison:
    """Compare a folder with what the kit deploys for a release."""
    found = compare.differences(folder, kit.topology(one), one)
    return Comparison(
        release=one, catalogued=catalogued, found=reasons.explained(found, _reasons(), one.version)
    )


def _check_folder(
    folder: Path, version: str, against: Path | None, catalogue: Path | None, *, every: bool, as_json: bool
) -> None:
    topology = _read(folder)
    known = _catalogue(catalogue)
    own = importing.version_of(topology)
    try:
        if against:
            result = compared(topology, _load(against))
        elif version or (own in known):
            result = compared(topology, _release(version or str(own), catalogue))
        else:
            result = _uncatalogued(topology, own or str(declared()["release"]["default"]), known)
    except pulumi.RunError as problem:
        raise UsageError(f"the kit cannot render this release: {problem}") from None
    if as_json:
        typer.echo(json.dumps(result.document(), indent=2))
    else:
        _show(result, folder, every=every)
    if result.unexplained or not result.catalogued:
        raise typer.Exit(UNEXPLAINED)


def _uncatalogued(topology: Topology, version: str, known: Mapping[str, Release]) -> Comparison:
    """Compare with what an import of this very folder would give: what is left is what the kit itself lacks."""
    made = importing.imported(topology, version, _nearest(version, known), _reasons())
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / f"{version}.yaml"
        file.write_text(made.text, encoding="utf-8")
        return compared(topology, _load(file), catalogued=False)


def _show(result: Comparison, folder: Path, *, every: bool) -> None:
    wanted = [(difference, reason) for difference, reason in result.found if reason is None or every]
    if wanted:
        table = Table(
            *(
                Column(name, overflow="fold")
                for name in ("what", "service", "name", "the kit", "official", "kit", "why")
            ),
            title=f"{folder} against the kit's Dify {result.release.version}",
        )
        for difference, reason in wanted:
            table.add_row(
                difference.kind,
                difference.service,
                difference.name,
                str(difference.change),
                difference.official or "",
                difference.kit or "",
                reason.text if reason else "no reason known",
            )
        _print(table)
    if not every:
        _show_reasons(reason for _, reason in result.found if reason)
    for line in result.release.unknown:
        say(f"to look up: {line}")
    explained = len(result.found) - len(result.unexplained)
    say(f"{len(result.unexplained)} differences without a reason, {explained} with one")
    if not result.catalogued:
        made = hints.kit("release", "import", str(folder), "--version", result.release.version)
        say(
            f"Dify {result.release.version} is not in the catalogue: compared with what `{made}` makes of the folder"
        )


def _print(table: Table) -> None:
    console = Console()
    # Without a terminal no window limits the width.
    Console(width=None if console.is_terminal else WIDTH).print(table)


def _show_reasons(found: Iterable[Reason]) -> None:
    table = Table(
        *(Column(name, overflow="fold") for name in ("what", "differences", "why")),
        title="Intended differences",
    )
    for reason, number in Counter(found).items():
        table.add_row(reason.kind, str(number), reason.text)
    _print(table)


def _check_file(file: Path, *, as_json: bool) -> None:
    if not file.is_file():
        raise UsageError(f"{file}: neither a folder nor a file")
    found = completeness.missing(file)
    if as_json:
        typer.echo(json.dumps({"file": str(file), **asdict(found)}, indent=2))
    else:
        for line in found.problems:
            warn(line)
        for line in found.to_look_up:
            say(f"to look up: {line}")
        for line in found.notes:
            say(f"note: {line}")
        say(f"{file}: " + ("complete" if found.complete else "lacks what is listed above"))
    if not found.complete:
        raise typer.Exit(UNEXPLAINED)


def _problems_of(text: str, version: str) -> list[str]:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / f"{version}.yaml"
        file.write_text(text, encoding="utf-8")
        return [line.replace(f"{scratch}/", "") for line in completeness.missing(file).problems]


def _read(folder: Path) -> Topology:
    try:
        return compose.read(folder)
    except compose.ComposeError as problem:
        raise UsageError(str(problem), "name the `docker` folder of Dify's sources of one release") from None


def _load(file: Path) -> Release:
    try:
        return releases.load(file)
    except CatalogueError as problem:
        raise UsageError(
            str(problem), f"`{hints.kit('release', 'check', str(file))}` lists everything that is wrong"
        ) from None


def _catalogue(directory: Path | None) -> Mapping[str, Release]:
    try:
        return releases.catalogue(directory)
    except CatalogueError as problem:
        raise UsageError(str(problem)) from None


def _release(version: str, directory: Path | None) -> Release:
    known = _catalogue(directory)
    if version not in known:
        raise UsageError(f"--release {version}: not in the catalogue", hints.nearest(version, known))
    return known[version]


def _short(file: Path) -> str:
    """Return the path of a file, from here where it lies below."""
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)


def _nearest(version: str, known: Mapping[str, Release]) -> Release:
    """Return the newest release that is not above a version, else the oldest."""
    number = releases.version_number(version)
    not_above = [one for one in known if releases.version_number(one) <= number]
    return known[not_above[0] if not_above else list(known)[-1]]


def _is_version(text: str) -> bool:
    parts = text.split(".")
    return len(parts) == 3 and all(part.isdigit() for part in parts)  # noqa: PLR2004  # major, minor, patch


def _reasons() -> tuple[Reason, ...]:
    try:
        return reasons.load()
    except reasons.ReasonsError as problem:
        raise UsageError(str(problem)) from None


def _facts(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as problem:
        raise UsageError(f"{path}: {problem}") from None
    if not isinstance(document, dict) or not all(isinstance(entry, dict) for entry in document.values()):
        raise UsageError(f"{path}: it maps the name of each setting to its facts")
    return document
