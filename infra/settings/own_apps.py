"""The settings about apps: `dify:apps`, and the directory of one's own, `dify:appsDir`."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from infra import hints
from infra.catalogue.yaml_reader import read_yaml
from infra.settings.apps import DIRECTORY, app_file, known_apps, needs_default_model
from infra.settings.reader import Section

# The name of a file names a resource, and the app is found again by it.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_NAME_RULE = "at most 63 letters, digits, '.', '_' and '-'"


def read_apps_dir(top: Section) -> Path | None:
    """Read `dify:appsDir`. A name that is the kit's too is reported: which file counts would be a surprise."""
    given = top.text("appsDir")
    if not given:
        return None
    path = Path(given).expanduser()
    if not path.is_absolute() or not path.is_dir():
        top.problems.add("appsDir", given, "is not a directory", "use the absolute path of a directory")
        return None
    taken = {one.stem for one in DIRECTORY.glob("*.yml")}
    for file in sorted(path.glob("*.yml")):
        if file.stem in taken:
            top.problems.add("appsDir", str(file), "has the name of an app of the kit", "rename the file")
        elif not _NAME.fullmatch(file.stem):
            top.problems.add("appsDir", str(file), "its name cannot name an app", f"use {_NAME_RULE}")
    return path


def read_apps(top: Section, own: Path | None) -> tuple[str, ...]:
    """Read `dify:apps`."""
    apps = top.texts("apps")
    for app in apps:
        report_app(top, "apps", app, own)
    return apps


def report_app(section: Section, key: str, app: str, own: Path | None) -> bool:
    """Report an app that cannot be imported, under the full key; return whether it can."""
    if app not in known_apps(own):
        section.problems.add(
            key,
            app,
            "is not a file in apps/" if own is None else f"is a file neither in apps/ nor in {own}",
            hints.nearest(app, known_apps(own))
            + ("" if own else " Or name a directory with apps of your own: dify:appsDir"),
        )
        return False
    if problem := dsl_problem(app_file(app, own)):
        section.problems.add(
            key, str(app_file(app, own)), problem, "export the app from Dify's console again"
        )
        return False
    return True


def report_without_model(top: Section, apps: Iterable[str], own: Path | None) -> None:
    """Report each app that uses the default model, for a stack that has none."""
    for app in dict.fromkeys(apps):
        if needs_default_model(app_file(app, own)):
            top.problems.add(
                "apps",
                app,
                "uses the default model, and this stack has none",
                f"turn on dify:llm (`{hints.kit('up', '--llm', stack=top.problems.stack)}`), or name one in "
                "modelProviders.defaults.llm",
            )


def dsl_problem(file: Path) -> str:
    """Return what keeps a file from being the DSL of an app; empty when nothing does."""
    try:
        document = read_yaml(file.read_text(encoding="utf-8"))
    except OSError as problem:
        return f"cannot be read ({problem.strerror})"
    except (UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError):
        return "is not YAML in UTF-8"
    app = document.get("app") if isinstance(document, Mapping) else None
    if not isinstance(app, Mapping) or not app.get("mode") or not app.get("name"):
        return "has no app.mode or no app.name"
    return ""
