"""Why the kit intentionally differs from the official compose folder: infra/catalogue/differences.yaml."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from dify_kit.releases.compare import KINDS, Change, Difference
from infra.catalogue.releases import CATALOGUE, VERSION, version_number
from infra.catalogue.yaml_reader import read_yaml

FILE = CATALOGUE / "differences.yaml"
_LISTS = ("services", "names")
_KEYS = frozenset({"reason", "kind", "change", "since", "before", "official", "kit", "elsewhere", *_LISTS})


class ReasonsError(ValueError):
    """The table of reasons cannot be used. The message names the entry and what is wrong."""


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why differences of one kind are meant, and which ones: every pattern that is given has to match.

    Patterns are those of the shell (`NGINX_*`). `changes` empty means each; `since` (included) and `before` (not
    included) bound the releases. `elsewhere` asks that the service does not read the variable, and another one does.
    """

    text: str
    kind: str
    services: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    since: str = ""
    before: str = ""
    official: str | None = None
    kit: str | None = None
    elsewhere: bool = False

    def explains(self, difference: Difference, release: str) -> bool:
        """Tell whether this is the reason of a difference of a release."""
        number = version_number(release)
        return (
            difference.kind == self.kind
            and (not self.since or number >= version_number(self.since))
            and (not self.before or number < version_number(self.before))
            and (not self.changes or difference.change in self.changes)
            and _any(self.services, difference.service)
            and _any(self.names, difference.name)
            and matches(self.official, difference.official)
            and matches(self.kit, difference.kit)
            and (difference.elsewhere or not self.elsewhere)
        )


def _any(patterns: tuple[str, ...], text: str) -> bool:
    return not patterns or any(matches(pattern, text) for pattern in patterns)


def matches(pattern: str | None, text: str | None) -> bool:
    """Tell whether a text, or none, has a pattern; each has none."""
    return pattern is None or (text is not None and fnmatchcase(text, pattern))


def load(path: Path = FILE) -> tuple[Reason, ...]:
    """Return the reasons in the order of the file. Raises ReasonsError."""
    try:
        document = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as problem:
        raise ReasonsError(f"{path}: {problem}") from None
    entries = document.get("reasons") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ReasonsError(f"{path}: `reasons` is a list")
    return tuple(_reason(entry, f"{path}: reason {number}") for number, entry in enumerate(entries, start=1))


def _reason(entry: Any, where: str) -> Reason:  # noqa: ANN401  # of YAML
    if not isinstance(entry, dict):
        raise ReasonsError(f"{where} is {entry!r}: it is a map")
    if unknown := entry.keys() - _KEYS:
        raise ReasonsError(
            f"{where}: {', '.join(sorted(unknown))}: no such key; known are {', '.join(sorted(_KEYS))}"
        )
    text = entry.get("reason")
    if not isinstance(text, str) or not text.strip():
        raise ReasonsError(f"{where}: `reason` says why")
    if entry.get("kind") not in KINDS:
        raise ReasonsError(f"{where}: kind is {entry.get('kind')!r}: it is one of {', '.join(KINDS)}")
    changes = _texts(entry, "change", where)
    if wrong := set(changes) - {str(change) for change in Change}:
        raise ReasonsError(f"{where}: change is {', '.join(sorted(wrong))}: it is one of {', '.join(Change)}")
    if not any(key in entry for key in (*_LISTS, "official", "kit", "elsewhere", "change")):
        raise ReasonsError(f"{where}: explains everything of its kind: name `services` or `names`")
    _check_scalars(entry, where)
    return Reason(
        text=" ".join(text.split()),
        kind=entry["kind"],
        services=_texts(entry, "services", where),
        names=_texts(entry, "names", where),
        changes=changes,
        since=entry.get("since", ""),
        before=entry.get("before", ""),
        official=entry.get("official"),
        kit=entry.get("kit"),
        elsewhere=entry.get("elsewhere", False),
    )


def _check_scalars(entry: Mapping[str, Any], where: str) -> None:
    for key in ("since", "before", "official", "kit"):
        if not isinstance(entry.get(key, ""), str):
            raise ReasonsError(f"{where}: {key} is {entry[key]!r}: it is text; write it in quotes")
    for key in ("since", "before"):
        if key in entry and not VERSION.fullmatch(entry[key]):
            raise ReasonsError(f"{where}: {key} is {entry[key]!r}: it is a release such as 1.17.0")
    if not isinstance(entry.get("elsewhere", False), bool):
        raise ReasonsError(f"{where}: elsewhere is {entry['elsewhere']!r}: it is true or false")


def _texts(entry: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = entry.get(key, [])
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ReasonsError(f"{where}: {key} is {value!r}: it is a list of texts")
    return tuple(texts)


def explained(
    differences: Iterable[Difference], reasons: Iterable[Reason], release: str
) -> list[tuple[Difference, Reason | None]]:
    """Return each difference with its reason, the first that explains it, or None."""
    known = tuple(reasons)
    return [
        (one, next((reason for reason in known if reason.explains(one, release)), None))
        for one in differences
    ]
