"""Models for a stack whose operator has the key of a known upstream in the environment: `dify-kit up --llm`."""

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import typer

from dify_kit.engine.cli import Pulumi
from dify_kit.errors import KitError
from dify_kit.stack import changing, dify_key, settings, upstreams
from dify_kit.stack.changing import Change
from dify_kit.talk import say
from dify_kit.workspace.files import PROJECT, StackFiles
from infra import hints
from infra.catalogue.llm_presets import OFFERED, PRESETS, key_problem
from infra.catalogue.project import declared
from infra.settings.given import SEALED
from infra.settings.llm import KEYS

# The example that answers with the default model.
EXAMPLE = "llm-chat"
GUIDE = "docs/guides/llm-proxy.md"


def found(environ: Mapping[str, str] | None = None) -> str:
    """Return the first preset whose variable holds a key, empty for none."""
    environ = os.environ if environ is None else environ
    return next((name for name in OFFERED if environ.get(PRESETS[name].variable, "").strip()), "")


def choose(wanted: bool | None) -> str:
    """Return the preset to use, empty for none. On a terminal a found key is asked about, unless `wanted` says it."""
    preset = found()
    if wanted is None:
        if not preset or not sys.stdin.isatty():
            return ""
        question = (
            f"{PRESETS[preset].variable} is set. Use this key for models in Dify and under /llm/v1? It is stored "
            "encrypted, and each model is tried once with a few tokens"
        )
        return preset if typer.confirm(question, default=False, err=True) else ""
    if wanted and not preset:
        variables = ", ".join(PRESETS[name].variable for name in OFFERED)
        raise KitError(
            "--llm: no key of an upstream in the environment",
            f"set one of {variables}; for a server of your own: {GUIDE}",
        )
    return preset if wanted else ""


def settings_for(preset: str) -> dict[str, Any]:
    """Return the settings of a new stack with the models of a preset, and the example app."""
    apps = declared()["apps"]["default"]
    return {"llm": _llm(preset), "apps": [*apps, EXAMPLE]} if preset else {}


def prepare(files: StackFiles, wanted: bool | None) -> str:
    """Return the preset whose key `up` stores, empty for none, before anything is set up. Raises KitError."""
    if not files.configured():
        preset = choose(wanted)
    elif wanted and not settings.section(files, "llm").boolean("enabled"):
        preset = choose(wanted=True)
        _require_upstream(files, preset)
    else:
        return ""
    check(preset)
    return preset


def store(pulumi: Pulumi, preset: str) -> None:
    """Put the key from the preset's variable into the encrypted settings."""
    changing.apply(pulumi, [_key(preset)])
    _say_stored(preset)


def check(preset: str) -> None:
    """Raise KitError when the preset's variable holds no key of it."""
    if preset:
        _key(preset)


def turn_on(pulumi: Pulumi) -> None:
    """Turn the LLM proxy of an existing stack on, and let Dify use it. What is set already stays.

    The key of an upstream that has none is stored too. All changes are checked before one is written.
    """
    files = pulumi.files
    section = settings.section(files, "llm")
    changes: list[Change] = []
    if section.boolean("enabled"):
        preset = found()
        preset = preset if preset in section.mapping("upstreams") and not _has_key(pulumi, preset) else ""
    else:
        preset = choose(wanted=True)
        _require_upstream(files, preset)
        new = f"{PROJECT}:llm" not in files.config()
        changes.append(
            Change(path=("llm",), value=_llm(preset)) if new else Change(path=("llm", "enabled"), value=True)
        )
    if preset:
        changes.append(_key(preset))
    if dify_key.SETTING not in files.config():
        changes.append(dify_key.new())
    example, hint = _example(pulumi)
    changes += example
    if changes:
        changing.apply(pulumi, changes)
    if preset:
        _say_stored(preset)
    if hint:
        say(hint)


def _require_upstream(files: StackFiles, preset: str) -> None:
    """Raise KitError when the stack's settings name upstreams, and not the preset."""
    if f"{PROJECT}:llm" in files.config() and preset not in settings.section(files, "llm").mapping(
        "upstreams"
    ):
        command = hints.assign(f"llm.upstreams.{preset}.preset", preset, stack=files.stack)
        raise KitError(
            f"{PROJECT}:llm.upstreams has no {preset}, whose key is in {PRESETS[preset].variable}",
            f"add it and its models: `{command}`",
        )


def _has_key(pulumi: Pulumi, preset: str) -> bool:
    keys = settings.given(pulumi.files, decrypt=True).values.get(KEYS)
    if keys is SEALED:
        keys = upstreams.stored(pulumi)
    return isinstance(keys, dict) and bool(keys.get(preset))


def _key(preset: str) -> Change:
    """Return the change that stores the key of the preset's variable. Raises KitError for one of another form."""
    variable = PRESETS[preset].variable
    key = os.environ[variable].strip()
    if problem := key_problem(preset, key):
        raise KitError(f"the key from {variable} {problem}", f"use a key of {preset}")
    return Change(path=(KEYS, preset), value=key, secret=True)


def _say_stored(preset: str) -> None:
    say(f"key of {preset}: {upstreams.masked(os.environ[PRESETS[preset].variable].strip())}")


def _example(pulumi: Pulumi) -> tuple[list[Change], str]:
    """Return the change that adds the example app to a stack with the default apps that was never deployed.

    For another stack, the hint that says how to add it.
    """
    files = pulumi.files
    chosen = settings.given(files).values.get("apps")
    usual = declared()["apps"]["default"]
    apps = usual if chosen is None else chosen
    providers = settings.section(files, "modelProviders")
    if providers.section("proxy", providers.defaults["proxy"]).raw("enabled") is False:
        # Dify does not get the proxy's models: the example could have none to answer with.
        return [], ""
    if not isinstance(apps, list) or EXAMPLE in apps:
        return [], ""
    added = [*apps, EXAMPLE]
    if apps == usual and not pulumi.state().urns:
        return [Change(path=("apps",), value=added)], ""
    command = hints.assign("apps", json.dumps(added), stack=files.stack)
    return [], f"{EXAMPLE}, the example app with a model, is not in {PROJECT}:apps; `{command}` adds it"


def _llm(preset: str) -> dict[str, Any]:
    known = PRESETS[preset]
    default = declared()["llm"]["default"]
    names = {
        part: {model: [preset if name == model else f"{preset}:{name}"] for model, name in served.items()}
        for part, served in (("models", known.models), ("embeddings", known.embeddings))
    }
    chosen = {"upstreams": {preset: {"preset": preset}}, **names}
    return {"enabled": True} | {part: value for part, value in chosen.items() if value != default[part]}
