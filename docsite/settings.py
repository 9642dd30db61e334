"""One page for each group of settings: its part of the settings reference, and what `Pulumi.yaml` declares."""

import re
from collections.abc import Iterator

import yaml

from dify_kit.errors import KitError
from dify_kit.workspace.files import CHECKOUT
from docsite.pages import Page
from infra.catalogue.project import declared

REFERENCE = "docs/reference/settings.md"
_ROW = re.compile(r"^\| `([A-Za-z0-9]+)[^`]*` \|", re.MULTILINE)


def setting_pages() -> list[Page]:
    """Return a page for each section of the reference with settings. Raises KitError for a setting without a page."""
    found = list(_groups())
    missing = declared().keys() - {key for _, _, keys in found for key in keys}
    if missing:
        raise KitError(f"{REFERENCE}: no row for {', '.join(sorted(missing))}", "add it to a table there")
    return [
        Page(
            path=f"reference/settings/{_slug(title)}.md",
            # Links of the reference's text start where the reference is.
            source=f"docs/reference/settings-{_slug(title)}.md",
            text=_text(title, body, keys),
        )
        for title, body, keys in found
    ]


def _groups() -> Iterator[tuple[str, str, list[str]]]:
    """Yield title, text and keys of each section with a table of settings."""
    source = (CHECKOUT / REFERENCE).read_text(encoding="utf-8")
    for section in re.split(r"^## ", source, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        keys = list(dict.fromkeys(key for key in _ROW.findall(body) if key in declared()))
        if keys:
            yield title, body.strip(), keys


def _text(title: str, body: str, keys: list[str]) -> str:
    # Anchors of other sections are in the reference.
    linked = re.sub(r"\]\(#", "](settings.md#", body)
    named = ", ".join(f"[`{key}`](#{key.lower()})" for key in keys)
    parts = [
        f"# {title}",
        f"Settings of this group: {named}.",
        linked,
        "## As declared",
        "What `Pulumi.yaml` says, the source of every default.",
    ]
    return "\n\n".join([*parts, *map(_declared, keys)]) + "\n"


def _declared(key: str) -> str:
    """Return a heading, the description and the default of a setting."""
    entry = declared()[key]
    described = " ".join(str(entry.get("description", "")).split())
    kind = f"Type: {entry['type']}."
    if entry.get("secret"):
        return f"### {key}\n\n{described}\n\n{kind} Stored encrypted; it has no default."
    default = yaml.safe_dump({f"dify:{key}": entry.get("default")}, sort_keys=False, width=100).strip()
    return f"### {key}\n\n{described}\n\n{kind}\n\n```yaml\n{default}\n```"


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
