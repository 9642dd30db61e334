"""The path of a setting, as Pulumi writes it: `httpPort`, `tls.mode`, `cors.v1[0]`, `llm.models["gpt-5.1"]`."""

import copy
import re
from collections.abc import Iterable
from typing import Any

from dify_kit.errors import UsageError
from dify_kit.workspace.files import PROJECT

Path = tuple[str | int, ...]
_STEP = re.compile(
    r"""\.?(?P<name>[^.\[\]"]+)|\[(?P<index>[0-9]{1,6})\]|\.?\["(?P<quoted>[^"]+)"\]""", re.ASCII
)


def read(text: str) -> Path:
    """Return the steps of a path: the setting's key, then parts and places in lists. Raises UsageError."""
    steps: list[str | int] = []
    rest = text.removeprefix(f"{PROJECT}:")
    while rest:
        found = _STEP.match(rest)
        if found is None or (not steps and found["name"] is None):
            raise UsageError(
                f"{text}: not the path of a setting", "for example: httpPort, tls.mode or cors.v1[0]"
            )
        steps.append(found["name"] or found["quoted"] or int(found["index"]))
        rest = rest[found.end() :]
    if not steps:
        raise UsageError("the name of the setting is empty", "for example: httpPort, tls.mode or cors.v1[0]")
    return tuple(steps)


def text_of(path: Path) -> str:
    """Return a path as it is written."""
    first, *rest = path
    return str(first) + "".join(_step(one) for one in rest)


def _step(one: str | int) -> str:
    if isinstance(one, int):
        return f"[{one}]"
    return f".{one}" if _STEP.fullmatch(f".{one}") else f'["{one}"]'


def get(root: Any, path: Path) -> Any:  # noqa: ANN401  # settings hold any JSON value
    """Return what is at a path; None where nothing is."""
    for step in path:
        try:
            root = root[step]
        except (KeyError, IndexError, TypeError):
            return None
    return root


def put(root: dict[str, Any], path: Path, value: object) -> dict[str, Any]:
    """Return a copy with a value at a path; objects and lists on the way are made. Raises UsageError."""
    changed = copy.deepcopy(root)
    place: Any = changed
    for number, (step, following) in enumerate(zip(path, (*path[1:], None), strict=True)):
        last = number == len(path) - 1
        made: Any = value if last else [] if isinstance(following, int) else {}
        if isinstance(place, list) and isinstance(step, int) and step <= len(place):
            place[step : step + 1] = [made if last or step == len(place) else place[step]]
        elif isinstance(place, dict) and isinstance(step, str):
            place[step] = made if last or place.get(step) is None else place[step]
        else:
            here = text_of(path[:number]) if number else text_of(path)
            raise UsageError(
                f"{text_of(path)}: {here} holds something else", f"set {here} as a whole, as JSON"
            )
        place = place[step]
    return changed


def drop(root: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return a copy without what is at a path, and without objects that this leaves empty."""
    changed = copy.deepcopy(root)
    for end in range(len(path), 0, -1):
        place = get(changed, path[: end - 1])
        del place[path[end - 1]]
        if place:
            break
    return changed


def drop_all(root: dict[str, Any], paths: Iterable[Path]) -> dict[str, Any]:
    """Return a copy without what is at the paths. Places in lists are those of `root`."""
    wanted = set(paths)
    # What is below another one goes with it.
    alone = [path for path in wanted if not any(path[:end] in wanted for end in range(1, len(path)))]
    # The last place of a list first: the places before it stay where they are.
    for path in sorted(alone, key=_order, reverse=True):
        root = drop(root, path)
    return copy.deepcopy(root)


def _order(path: Path) -> list[tuple[int, str]]:
    return [(step, "") if isinstance(step, int) else (-1, step) for step in path]
