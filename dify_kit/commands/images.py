"""The commands about images: list, save, load, mirror."""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from dify_kit.app import COMMANDS, DEFAULT_STACK, Group, Stack, app
from dify_kit.commands.selected import require_configured
from dify_kit.errors import KitError, UsageError
from dify_kit.images import archive, copying, node_images, wanted
from dify_kit.images.ticks import size_text
from dify_kit.images.wanted import ImageStore, Present, Source, Wanted
from dify_kit.stack import settings
from dify_kit.stack.create import VectorStore, default
from dify_kit.talk import say, warn
from dify_kit.workspace.files import StackFiles
from infra import hints
from infra.catalogue.releases import Release
from infra.platforms import image_needs
from infra.settings.image_source import MIRROR, REGISTRY_HOST

images = typer.Typer(
    cls=Group,
    name="images",
    no_args_is_help=True,
    help=f"{COMMANDS['images']}\n\n"
    "Each command works for a stack of this machine, or with --release for one that is not made yet.",
)
app.add_typer(images)

ReleaseOption = Annotated[
    str, typer.Option("--release", metavar="VERSION", help="Not a stack's images, but those of this release.")
]
StoreOption = Annotated[
    VectorStore | None,
    typer.Option(help="With --release: the vector store. [default: as Pulumi.yaml says]"),
]
AlsoOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ROLE",
        help="With --release: what else the stack will need: gateway (OAuth, console gate), litellm, certbot (ACME); "
        "repeatable.",
    ),
]
ByTag = Annotated[
    bool,
    typer.Option(
        "--by-tag",
        help="Take images by tag without comparing digests: for images that were loaded or pushed, not pulled.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Whose images: of a stack (by name), or of a release."""

    stack: str
    release: Release
    parts: image_needs.Parts
    source: Source

    @property
    def images(self) -> list[Wanted]:
        """What it runs."""
        return wanted.wanted(self.parts, self.release, self.source)


def _subject(  # the options in the order of --help
    stack: str, release: str, vector_store: VectorStore | None, also: Sequence[str] | None, by_tag: bool
) -> Subject:
    if not release:
        if vector_store or also:
            raise UsageError(
                "--vector-store and --also belong to --release", "a stack's settings say it themselves"
            )
        return _of_stack(stack, by_tag)
    chosen = wanted.release_named(release)
    if unknown := sorted(set(also or ()) - image_needs.OPTIONAL):
        raise UsageError(
            f"--also {unknown[0]}: no such role", f"use one of {', '.join(sorted(image_needs.OPTIONAL))}"
        )
    store = vector_store.value if vector_store else str(default("vectorStore"))
    return Subject(
        stack="",
        release=chosen,
        parts=image_needs.Parts(vector_store=store, optional=frozenset(also or ())),
        source=Source(pinned=not by_tag),
    )


def _of_stack(stack: str, by_tag: bool) -> Subject:
    files = StackFiles.open(stack)
    if not files.configured():
        raise KitError(
            f"stack {stack} does not exist on this machine",
            f"name a release: `--release {default('release')}`, or create the stack: `{hints.kit('init', stack)}`",
        )
    found = settings.checked(files)
    source = wanted.source_of(found)
    return Subject(
        stack=stack,
        release=found.dify,
        parts=image_needs.parts_of(found),
        source=Source(mode=source.mode, mirror=source.mirror, pinned=source.pinned and not by_tag),
    )


@images.command("list")
def list_images(  # noqa: PLR0917  # Typer calls it by name
    stack: Stack = DEFAULT_STACK,
    release: ReleaseOption = "",
    vector_store: StoreOption = None,
    also: AlsoOption = None,
    by_tag: ByTag = False,
    as_json: Json = False,
) -> None:
    """List every image: its exact reference, whether the engine has it, its size there, and where it comes from.

    One line an image, the reference first. Sizes are those of unpacked images, known where they are present.
    """
    subject = _subject(stack, release, vector_store, also, by_tag)
    store = ImageStore()
    rows = [(one, store.find(one.reference)) for one in subject.images]
    if as_json:
        listed = [_document(one, present) for one, present in rows]
        document = {"stack": subject.stack, "release": subject.release.version, "images": listed}
        typer.echo(json.dumps(document, indent=2))
        return
    width = max(len(one.reference) for one, _ in rows)
    for one, present in rows:
        there = f"present  {size_text(present.size):>9}" if present else "missing          -"
        typer.echo(f"{one.reference:<{width}}  {there}  {one.origin}")
    missing = sum(present is None for _, present in rows)
    total = size_text(sum(present.size for _, present in rows if present))
    say(f"{len(rows)} image(s) of Dify {subject.release.version}, {missing} missing; {total} are here")


def _document(one: Wanted, present: Present | None) -> dict[str, Any]:
    return {
        "reference": one.reference,
        "roles": list(one.roles),
        "digest": one.digest,
        "origin": one.origin,
        "present": present is not None,
        "id": present.id if present else None,
        "size": present.size if present else None,
    }


@images.command()
def save(  # noqa: PLR0917  # Typer calls it by name
    file: Annotated[str, typer.Argument(metavar="FILE", help="The archive to write; `-` is stdout.")],
    stack: Stack = DEFAULT_STACK,
    release: ReleaseOption = "",
    vector_store: StoreOption = None,
    also: AlsoOption = None,
    by_tag: ByTag = False,
    fetch: Annotated[
        bool, typer.Option("--fetch/--no-fetch", help="Pull or build what the engine lacks, or stop there.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
    as_json: Json = False,
) -> None:
    """Write every image into one archive, for a machine without a registry: own builds included.

    It is an ordinary `docker save` archive with a list of references, ids and SHA-256 checksums in it. stdout has the
    archive's own checksum, as sha256sum prints it. It is as large as the unpacked images; to compress it:

        dify-kit images save - | zstd > images.tar.zst
    """
    subject = _subject(stack, release, vector_store, also, by_tag)
    if subject.source.mode == "local":
        raise KitError(
            f"stack {subject.stack} builds its images (dify:images local), and so does every other machine",
            f"for Dify's own images name a release: --release {subject.release.version}",
        )
    if file == "-" and (sys.stdout.isatty() or as_json):
        raise UsageError(
            "the archive goes to stdout, and something else is there", "name a file, or use a pipe"
        )
    target = Path(file)
    if file != "-" and target.exists() and not force:
        raise UsageError(f"{file} exists", "name another file, or replace it with --force")
    store = ImageStore()
    rows = _gathered(subject, store, fetch=fetch)
    if file == "-":
        contents = archive.save(rows, subject.release.version, store, sys.stdout.buffer)
    else:
        contents = _saved(rows, subject, store, target)
    if as_json:
        typer.echo(json.dumps(_saved_document(contents, file), indent=2))
    elif file != "-":
        typer.echo(f"{contents.sha256}  {file}")
    say(f"saved {len(rows)} image(s) of Dify {subject.release.version}; sha256 {contents.sha256}")
    load_there = hints.kit("images", "load", "dify-images.tar" if file == "-" else target.name)
    say(f"there: `{load_there}`, then a stack with `--images preloaded`")


def _gathered(subject: Subject, store: ImageStore, *, fetch: bool) -> list[tuple[Wanted, Present]]:
    found = [(one, store.find(one.reference)) for one in subject.images]
    missing = [one for one, present in found if present is None]
    if missing and (not fetch or subject.source.mode == "preloaded"):
        listed = "\n".join(f"  - {one.reference}" for one in missing)
        raise KitError(
            f"{len(missing)} image(s) are not in the engine:\n{listed}",
            f"a preloaded stack fetches nothing: `{hints.kit('images', 'load', 'dify-images.tar')}`"
            if subject.source.mode == "preloaded"
            else "leave --no-fetch out; an image that came without a registry is taken with --by-tag",
        )
    return [(one, present or store.fetch(one)) for one, present in found]


def _saved(
    rows: list[tuple[Wanted, Present]], subject: Subject, store: ImageStore, target: Path
) -> archive.Contents:
    """Write beside the file and move it into place, complete."""
    needed = sum(present.size for _, present in rows)
    draft = target.with_name(f".{target.name}.part")
    try:
        free = shutil.disk_usage(target.parent).free
        if free < needed:
            raise KitError(
                f"{size_text(free)} are free at {target.parent}, and the archive takes about {size_text(needed)}",
                "name a file on another disk, or `-` and a pipe",
            )
        with draft.open("wb") as out:
            contents = archive.save(rows, subject.release.version, store, out)
            os.fsync(out.fileno())
        draft.replace(target)
    except OSError as problem:
        raise KitError(f"cannot write {target}: {problem.strerror}", "name another file") from None
    finally:
        draft.unlink(missing_ok=True)
    return contents


def _saved_document(contents: archive.Contents, file: str) -> dict[str, Any]:
    return {
        "file": file,
        "sha256": contents.sha256,
        "release": contents.release,
        "images": [{"reference": one.reference, "id": one.id, "size": one.size} for one in contents.images],
    }


@images.command()
def load(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="An archive that `images save` wrote; `-` is stdin.")
    ],
    checksum: Annotated[
        str,
        typer.Option(
            metavar="SHA256",
            help="The archive's checksum, as `images save` printed it: tells a forged archive, too.",
        ),
    ] = "",
    verify_only: Annotated[
        bool, typer.Option("--verify-only", help="Compare checksums and load nothing; no engine is needed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check an archive, load it into the engine, and compare the ids of its images.

    All checksums are compared before anything is loaded. The checksums in the archive show damage; --checksum also
    shows a forged archive. stdout lists the images.
    """
    with archive.opened(file) as opened:
        contents = archive.verify(opened)
        if checksum and checksum.lower() != contents.sha256:
            raise archive.ArchiveError(
                f"the archive's SHA-256 is {contents.sha256}, and {checksum} was given",
                "it is another archive",
            )
        say(f"checksums of {len(contents.members)} members are right; sha256 {contents.sha256}")
        replaced = [] if verify_only else _load(opened, contents)
    if as_json:
        document = _saved_document(contents, file)
        typer.echo(json.dumps({**document, "loaded": not verify_only, "replaced": replaced}, indent=2))
    else:
        for one in contents.images:
            typer.echo(f"{one.reference}  {one.id}  {size_text(one.size)}")
    say(
        f"{'checked' if verify_only else 'loaded'} {len(contents.images)} image(s) of Dify {contents.release}, saved "
        f"{contents.made}"
    )


def _load(opened: IO[bytes], contents: archive.Contents) -> list[str]:
    store = ImageStore()
    platform = store.platform
    if others := sorted({one.platform for one in contents.images} - {platform}):
        warn(
            f"images for {', '.join(others)}, and the engine is {platform}: they need emulation, or do not run"
        )
    replaced = [one.reference for one in archive.load(opened, contents, store)]
    for name in replaced:
        say(f"    {name} was another image until now")
    return replaced


@images.command()
def mirror(  # noqa: PLR0917  # Typer calls it by name
    to: Annotated[
        str,
        typer.Argument(
            metavar="[PREFIX]", help="Registry prefix, host[:port][/path]. [default: the stack's dify:mirror]"
        ),
    ] = "",
    stack: Stack = DEFAULT_STACK,
    release: ReleaseOption = "",
    vector_store: StoreOption = None,
    also: AlsoOption = None,
    by_tag: ByTag = False,
    source: Annotated[
        str,
        typer.Option(
            "--from", metavar="PREFIX", help="Copy from this mirror. [default: the public registries]"
        ),
    ] = "",
    tool: Annotated[
        str, typer.Option(help="skopeo, crane or regctl. [default: the first of them that is installed]")
    ] = "",
    docker_push: Annotated[
        bool,
        typer.Option(
            "--docker-push",
            help="Pull, tag and push with the engine instead. Digests and other platforms are lost: the stack needs "
            "dify:imagePins false.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Copy every image to a private registry, with the same digests, for `dify:images mirror`.

    Log in first: `skopeo login`, `crane auth login`, `regctl registry login`, or `docker login` for --docker-push. What
    is there already is left out. The gateway is built on the machine of the stack: its base image is copied.
    """
    subject = _subject(stack, release, vector_store, also, by_tag)
    to = to or subject.source.mirror
    for prefix in (to, *([source] if source else [])):
        if not MIRROR.fullmatch(prefix) or not REGISTRY_HOST.search(prefix.partition("/")[0]):
            raise UsageError(
                f"{prefix or 'nothing'} is no registry prefix", "name one, such as registry.example.com/dify"
            )
    listed = wanted.to_copy(
        subject.parts, subject.release, Source(mirror=source, pinned=subject.source.pinned)
    )
    pairs = [
        copying.Pair(
            wanted=one,
            source=one.reference,
            target=f"{to.rstrip('/')}/{copying.below(one, source)}",
            digest=one.digest if "@" in one.reference else None,
        )
        for one in listed
    ]
    if docker_push:
        warn(
            "pushed images have other digests, and this engine's platform only: deploy with dify:imagePins false"
        )
        done = copying.push(pairs, ImageStore())
    else:
        chosen = copying.find_tool(tool)
        say(f"copying {len(pairs)} image(s) with {chosen.program}")
        done = copying.copy(pairs, chosen)
    if as_json:
        typer.echo(json.dumps({"mirror": to, "images": [one.document() for one in done]}, indent=2))
    else:
        for one in done:
            typer.echo(f"{one.target}@{one.digest}")
    say(f"{to} has {len(done)} image(s) of Dify {subject.release.version}")


@images.command()
def push(stack: Stack = DEFAULT_STACK, as_json: Json = False) -> None:
    """Build the images that no registry has, and push them to `dify:kubernetes.registry`, from which nodes pull.

    `up` does it for a stack whose registry is set. Log in first: `docker login`. stdout lists what is there then.
    """
    files = StackFiles.open(stack)
    require_configured(files)
    done = node_images.push(settings.checked(files), ImageStore())
    if as_json:
        typer.echo(json.dumps({"images": [one.document() for one in done]}, indent=2))
    for one in done if not as_json else ():
        typer.echo(f"{one.target}@{one.digest}" if one.digest else one.target)
    say(f"{len(done)} image(s) pushed")
