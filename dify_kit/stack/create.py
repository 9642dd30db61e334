"""Create a stack: its settings, and every secret it needs, generated once and stored encrypted.

Secrets reach Pulumi in its environment, which only this user can read; never as arguments, which every user of
the machine sees in the process list, and never in a file. The stack's file appears in one move, complete.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from dify_kit.containers.docker_host import Engine
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import KitError
from dify_kit.stack import leftovers
from dify_kit.stack import settings as stack_settings
from dify_kit.talk import say
from dify_kit.workspace.files import PROJECT, write_private
from infra import hints
from infra.catalogue.project import declared
from infra.catalogue.releases import Release
from infra.catalogue.route_groups import SERVICE_API
from infra.catalogue.yaml_reader import read_yaml
from infra.settings.given import parsed
from infra.settings.secrets import SHAPES

ADMIN_EMAIL = "admin@example.com"
_REGISTRY_DEADLINE = 12.0


class ImageSource(StrEnum):
    """Where images come from (``dify:images``)."""

    REGISTRY = "registry"
    MIRROR = "mirror"
    PRELOADED = "preloaded"
    LOCAL = "local"


class VectorStore(StrEnum):
    """The vector store (``dify:vectorStore``)."""

    WEAVIATE = "weaviate"
    PGVECTOR = "pgvector"
    QDRANT = "qdrant"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the operator chose for a new stack; None and empty values take the documented default."""

    images: ImageSource | None = None
    mirror: str = ""
    release: str = ""
    http_port: int | None = None
    bind_address: str = ""
    public_url: str = ""
    vector_store: VectorStore | None = None
    admin_email: str = ""
    cors_origins: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


def default(key: str) -> Any:  # noqa: ANN401  # a setting may have any YAML type
    """Return the default that Pulumi.yaml gives setting ``key``, or None."""
    return declared()[key].get("default")


def generate_secrets() -> dict[str, str]:
    """Return a fresh value for every required secret."""
    return {key: shape.generate() for key, shape in SHAPES.items() if shape.generate}


def choose_images(engine: Engine, release: Release, vector_store: str) -> ImageSource:
    """Ask the registry once whether it can be reached, and print the choice that follows.

    Without it, images that were loaded into the engine are used, when they are complete.
    """
    image = release.images["busybox"]
    say("asking the engine whether the public image registry can be reached ...")
    problem = engine.can_reach_registry(f"{image.repository}:{image.tag}", _REGISTRY_DEADLINE)
    if not problem:
        say("images: registry (the official images, by pinned tag)")
        return ImageSource.REGISTRY
    say(f"the registry cannot be reached: {problem.strip().splitlines()[0][:200]}")
    names = loaded_names(release, vector_store)
    found = engine.images(names)
    if len(found) == len(names):
        say(
            "images: preloaded. Every image of Dify is in the engine; no registry is contacted, now or later."
        )
        return ImageSource.PRELOADED
    if found:
        say(f"{len(found)} of {len(names)} images are in the engine; for `--images preloaded` are missing:")
        for name in names:
            if name not in found:
                say(f"    {name}")
    say(
        "images: local. Every image is built on this machine, and small stand-ins take the place of Dify's "
        "own services: good for trying the kit and for tests, not for production."
    )
    return ImageSource.LOCAL


def loaded_names(release: Release, vector_store: str) -> list[str]:
    """Return the names under which `dify:images preloaded` looks for images, without those of optional parts."""
    from infra.platforms import image_needs  # noqa: PLC0415  # imports Pulumi, which takes longer than most commands
    from infra.platforms.images import loaded_name  # noqa: PLC0415

    roles = image_needs.roles(image_needs.Parts(vector_store=vector_store), release)
    return sorted({loaded_name(release.images[role]) for role in roles})


def chosen(choices: Choices) -> dict[str, Any]:
    """Return the settings that the operator chose, without any default."""
    optional: dict[str, Any] = {
        "images": choices.images.value if choices.images else None,
        "release": choices.release,
        "vectorStore": str(choices.vector_store) if choices.vector_store else None,
        "adminEmail": choices.admin_email,
        "mirror": choices.mirror,
        "httpPort": choices.http_port,
        "bindAddress": choices.bind_address,
        "publicUrl": choices.public_url,
        "cors": {SERVICE_API: list(choices.cors_origins)} if choices.cors_origins else None,
    }
    return {key: value for key, value in optional.items() if value} | dict(choices.extra)


def settings_of(choices: Choices, images: ImageSource) -> dict[str, Any]:
    """Return the settings to write. What data depends on is written even when it is the default of today."""
    store = VectorStore.PGVECTOR if images is ImageSource.LOCAL else default("vectorStore")
    return {
        "release": str(default("release")),
        "images": images.value,
        "vectorStore": str(store),
        "adminEmail": default("adminEmail") or ADMIN_EMAIL,
    } | chosen(choices)


def initialise(pulumi: Pulumi, engine: Engine, choices: Choices) -> Path:
    """Create the stack and return the path of its configuration. Nothing half-made is left behind.

    Raises KitError with the problems that Pulumi's program would report, before anything is made.
    """
    files = pulumi.files
    if files.configured():
        raise KitError(
            f"stack {files.stack} is configured already, in {files.config_file}; nothing was changed",
            f"change one setting: {hints.kit('set', '--help')}",
        )
    leftovers.refuse(files, engine, pulumi.state())
    generated = generate_secrets()
    # The source of images is chosen by what the engine can reach: first see that the rest can work.
    settings = settings_of(choices, choices.images or ImageSource.REGISTRY)
    planned = stack_settings.check_planned(files, settings, generated)
    if not choices.images and "images" not in choices.extra:
        images = choose_images(engine, planned.dify, planned.vector_store)
        settings = settings_of(choices, images)
        stack_settings.check_planned(files, settings, generated)
    if not pulumi.created():
        pulumi.run("stack", "init", "--no-select")
    say(f"generated {len(generated)} secrets; encrypting them")
    write(pulumi, settings, generated)
    say(f"stack {files.stack} is configured: {files.config_file}")
    if files.config_file == files.stored:
        command = hints.kit("backup", stack=files.stack)
        say(
            f"{files.data.root} holds the passphrase, and the data cannot be read without it: `{command}` copies both"
        )
    return files.config_file


def write(pulumi: Pulumi, settings: Mapping[str, Any], generated: Mapping[str, str]) -> None:
    """Add settings, and secrets encrypted, to the stack's file, in one move. What it has already stays as it is."""
    files = pulumi.files
    before = files.config()
    # Pulumi has put its encryption salt into the stack's file; the draft starts from it.
    draft = files.data.stacks / f".new-{files.stack}.yaml"
    salt = files.config_file.read_text(encoding="utf-8") if files.config_file.exists() else "{}\n"
    write_private(draft, salt)
    try:
        document = {f"{PROJECT}:{key}": _entry(value) for key, value in settings.items()}
        document |= {f"{PROJECT}:{key}": {"value": value, "secret": True} for key, value in generated.items()}
        # Pulumi reads any option from PULUMI_OPTION_<NAME>; as an argument it would be in the process list.
        pulumi.run(
            "config",
            "set-all",
            "--config-file",
            str(draft),
            extra={"PULUMI_OPTION_JSON": json.dumps(document)},
        )
        written = read_yaml(draft.read_text(encoding="utf-8")).get("config", {})
        if unsafe := [key for key in generated if "secure" not in (written.get(f"{PROJECT}:{key}") or {})]:
            raise KitError(
                f"Pulumi did not encrypt {', '.join(unsafe)}", "run `make setup`: its engine is too old"
            )
        if changed := [key for key, value in before.items() if not _same(key, written.get(key), value)]:
            raise KitError(
                f"Pulumi would change {', '.join(changed)} in {files.config_file}; nothing was changed",
                "run `make setup`: its engine is another one than the kit needs",
            )
        text = draft.read_text(encoding="utf-8")
        if files.own_file():
            files.linked.write_text(text, encoding="utf-8")
            return
        write_private(files.stored, text)
        files.link()
    finally:
        draft.unlink(missing_ok=True)


def _same(key: str, one: object, other: object) -> bool:
    """Whether two stored values mean the same: Pulumi quotes a number when it writes the file."""
    namespace, _, name = key.partition(":")
    if namespace != PROJECT:
        return str(one) == str(other)
    return parsed(name, one) == parsed(name, other)


def _entry(value: object) -> dict[str, object]:
    if isinstance(value, str):
        return {"value": value, "secret": False}
    return {"value": json.dumps(value), "objectValue": value, "secret": False}
