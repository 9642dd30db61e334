"""Copies images from registry to registry as they are: every platform, the same digests.

It calls a tool made for this, with the operator's own credentials: `skopeo login`, `docker login` and so on
wrote them. No credential passes through here. `docker push` makes another manifest, and so another digest; it is
the way only when asked for.
"""

import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from dify_kit.errors import KitError
from dify_kit.images.ticks import Ticks
from dify_kit.images.wanted import ImageStore, Wanted
from dify_kit.talk import say
from infra.platforms.images import registry_of

COPY_SECONDS = 3600
ASK_SECONDS = 120


@dataclass(frozen=True, kw_only=True)
class Tool:
    """How a program copies an image, and how it tells a digest. `{...}` are references with their registry."""

    program: str
    copy: tuple[str, ...]
    digest: tuple[str, ...]
    # What `digest` prints is the manifest itself.
    raw: bool = False

    def command(self, words: Sequence[str], **references: str) -> list[str]:
        """Return a command with its references filled in."""
        return [self.program, *(word.format(**references) for word in words)]


# In the order in which they are looked for.
TOOLS = (
    Tool(
        program="skopeo",
        # Without --all, the platform of this machine alone, and so another digest.
        copy=("copy", "--all", "--preserve-digests", "docker://{source}", "docker://{target}"),
        digest=("inspect", "--raw", "docker://{reference}"),
        raw=True,
    ),
    Tool(program="crane", copy=("copy", "{source}", "{target}"), digest=("digest", "{reference}")),
    Tool(
        program="regctl",
        copy=("image", "copy", "{source}", "{target}"),
        digest=("image", "digest", "{reference}"),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Copy:
    """One copy. `source` and `target` are references; `result` is `copied`, `there already` or `pushed`."""

    source: str
    target: str
    digest: str
    result: str

    def document(self) -> dict[str, str]:
        """Return the copy as JSON has it."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What is to be copied where. `digest` is what it has to be, None where the catalogue has none."""

    wanted: Wanted
    source: str
    target: str
    digest: str | None


def find_tool(name: str = "") -> Tool:
    """Return the tool of that name, or the first that is installed. Raises KitError."""
    names = [tool.program for tool in TOOLS]
    if name and name not in names:
        raise KitError(f"{name} is no tool that the kit knows", f"use one of {', '.join(names)}")
    for tool in TOOLS:
        if name in {"", tool.program} and shutil.which(tool.program):
            return tool
    raise KitError(
        f"{name or 'none of ' + ', '.join(names)} is installed" if not name else f"{name} is not installed",
        "install skopeo (Debian and others have it), crane or regctl; or --docker-push, which keeps neither digests "
        "nor other platforms",
    )


def by_digest(reference: str) -> str:
    """Return `repository@digest` for `repository:tag@digest`, which not every tool reads; others as they are."""
    name, at, digest = reference.partition("@")
    return f"{name.rpartition(':')[0]}@{digest}" if at else reference


def below(one: Wanted, source: str) -> str:
    """Return where an image lies below a mirror: without the registry that it comes from, by tag."""
    name = one.reference.partition("@")[0]
    if source:
        return name.removeprefix(f"{source.rstrip('/')}/")
    host = registry_of(name)
    return name.removeprefix(f"{host}/") if host else name


def copy(pairs: Sequence[Pair], tool: Tool) -> list[Copy]:
    """Copy images, those that are there left out; see that each digest is the same. Raises KitError at the first."""
    done = []
    for number, pair in enumerate(pairs, 1):
        source = by_digest(pair.source)
        wanted = pair.digest or _digest(tool, source, f"{pair.source} cannot be read")
        if _digest(tool, pair.target, "") == wanted:
            result = "there already"
        else:
            with Ticks(f"copying {pair.wanted.name} with {tool.program}"):
                _run(
                    tool.command(tool.copy, source=source, target=pair.target),
                    COPY_SECONDS,
                    f"{pair.source} cannot be copied to {pair.target}",
                )
            result = "copied"
            found = _digest(tool, pair.target, f"{pair.target} cannot be read")
            if found != wanted:
                raise KitError(
                    f"{pair.target} is {found}, and {pair.source} is {wanted}",
                    "does the registry convert images? Deploy from it with dify:imagePins false, or use another",
                )
        say(f"  {number}/{len(pairs)} {pair.target}  {result}")
        done.append(Copy(source=pair.source, target=pair.target, digest=wanted, result=result))
    return done


def push(pairs: Sequence[Pair], store: ImageStore) -> list[Copy]:
    """Push what the engine has, pulled or built first where it has nothing. Digests and other platforms are lost."""
    done = []
    for number, pair in enumerate(pairs, 1):
        found = store.find(pair.wanted.reference) or store.find(pair.wanted.name)
        if found is None:
            found = store.fetch(pair.wanted)
        known = store.find(pair.target)
        store.tag(found.id, pair.target)
        try:
            digest = store.push(pair.target)
        finally:
            # A name that was there before is not ours to take.
            if known is None:
                store.untag(pair.target)
        say(f"  {number}/{len(pairs)} {pair.target}  pushed")
        done.append(Copy(source=pair.source, target=pair.target, digest=digest, result="pushed"))
    return done


def _digest(tool: Tool, reference: str, why: str) -> str:
    """Return the digest of a reference; empty when it cannot be read and `why` is, too."""
    command = tool.command(tool.digest, reference=reference)
    try:
        output = _run(command, ASK_SECONDS, why or "not there")
    except KitError:
        if why:
            raise
        return ""
    return f"sha256:{hashlib.sha256(output).hexdigest()}" if tool.raw else output.decode().strip()


def _run(command: list[str], seconds: int, what: str) -> bytes:
    try:
        done = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise KitError(
            f"{what}: {command[0]} did not end within {seconds} s", "is the registry slow?"
        ) from None
    if done.returncode != 0:
        output = (done.stderr or done.stdout).decode(errors="replace").strip()[-600:]
        raise KitError(
            f"{what}: {output}",
            f"credentials and certificates are {command[0]}'s own: log in with it, and see its documentation for a "
            "private CA",
        )
    return done.stdout
