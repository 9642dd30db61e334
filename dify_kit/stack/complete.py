"""Complete a stack that was begun by hand: `pulumi stack init` and settings of one's own.

What is missing is filled in: the settings that data depends on, and every secret. What is there stays as it is.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dify_kit.containers.docker_host import Engine
from dify_kit.engine.cli import Pulumi
from dify_kit.errors import KitError
from dify_kit.stack import leftovers
from dify_kit.stack import settings as stack_settings
from dify_kit.stack.create import (
    Choices,
    ImageSource,
    choose_images,
    chosen,
    generate_secrets,
    settings_of,
    write,
)
from dify_kit.talk import say
from dify_kit.workspace.files import StackFiles
from infra import hints
from infra.catalogue.service import Keep
from infra.guards.volumes import names as volume_names

# Data was made with them: other values would not open it.
BOUND = ("postgresPassword", "secretKey", "adminPassword")


def complete(pulumi: Pulumi, engine: Engine, choices: Choices) -> Path:
    """Fill in what the settings of a stack lack, say what it was, and return the path of its file.

    Raises KitError when nothing is missing, when a choice differs from what is there, and with the problems that
    Pulumi's program would report; then nothing was changed.
    """
    files = pulumi.files
    there = {key: value for key, value in stack_settings.given(files).values.items() if value is not None}
    _refuse_changes(files, there, choices)
    secrets = {key: value for key, value in generate_secrets().items() if key not in there}
    plain = _missing(there, settings_of(choices, _source(there, choices)))
    if not secrets and not plain:
        raise KitError(
            f"stack {files.stack} is configured already, in {files.config_file}, and lacks nothing; nothing was "
            "changed",
            f"change one setting: {hints.kit('set', '--help')}",
        )
    _refuse_data_of_others(pulumi, engine, secrets)
    planned = stack_settings.check_planned(files, plain, secrets)
    if "images" in plain and not choices.images and "images" not in choices.extra:
        source = choose_images(engine, planned.dify, planned.vector_store)
        plain = _missing(there, settings_of(choices, source))
        stack_settings.check_planned(files, plain, secrets)
    if not pulumi.created():
        pulumi.run("stack", "init", "--no-select")
    write(pulumi, plain, secrets)
    if plain:
        say(f"filled in: {', '.join(f'{key}: {value}' for key, value in plain.items())}")
    if secrets:
        say(f"filled in {len(secrets)} generated secret(s): {', '.join(sorted(secrets))}")
    say(f"stack {files.stack} is complete: {files.config_file}; what was there is unchanged")
    return files.config_file


def _source(there: Mapping[str, Any], choices: Choices) -> ImageSource:
    """Return the source of images that is set or chosen; the registry where that is still to be found out."""
    known = there.get("images")
    if known in list(ImageSource):
        return ImageSource(known)
    return choices.images or ImageSource.REGISTRY


def _missing(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in wanted.items() if key not in there}


def _refuse_changes(files: StackFiles, there: Mapping[str, Any], choices: Choices) -> None:
    """Refuse options whose setting has another value already."""
    for key, value in chosen(choices).items():
        if key in there and there[key] != value:
            command = hints.assign(key, stack=files.stack)
            raise KitError(
                f"dify:{key} is {there[key]!r} in {files.config_file} already, and the option says {value!r}; nothing "
                "was changed",
                f"leave the option out, or change the setting: {command}",
            )


def _refuse_data_of_others(pulumi: Pulumi, engine: Engine, secrets: Mapping[str, str]) -> None:
    """Refuse to generate secrets for data that was made with others."""
    files, state = pulumi.files, pulumi.state()
    if not state.urns and set(secrets) >= set(BOUND):
        # The stack has never had secrets: everything that is there belongs to an earlier one of its name.
        leftovers.refuse(files, engine, state)
        return
    bound = [key for key in BOUND if key in secrets]
    held = engine.volumes(volume_names(files.stack, Keep.DATA)) if bound else []
    if held:
        raise KitError(
            f"{files.config_file} lacks {', '.join(bound)}, and the volumes of stack {files.stack} hold data that was "
            f"made with a value of it: {', '.join(held)}",
            "restore the file from your backup; or delete the data: "
            f"`{hints.kit('down', '--delete-data', stack=files.stack)}`",
        )
