"""Stands on PATH as ``pulumi``: notes how it was called, then plays the scene that the test wrote.

``$FAKE_PULUMI`` is a directory: ``calls.jsonl`` (written; one ``{"args", "environment"}`` a line) and
``scenes.json`` (read; verb -> ``{"code", "stdout", "stderr", "events", "seconds", "polite"}``).
`config set` keeps its standard input in ``stdin``.
`config set-all` and `stack init` do what the real ones do to the stack's file, with a marker for encryption.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import yaml

HOME = Path(os.environ["FAKE_PULUMI"])


def option(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1] if name in arguments else ""


def leave(_number: int, _frame: FrameType | None) -> None:
    (HOME / "terminated").touch()
    sys.exit(1)


def write_state(stack: str, resources: list[dict[str, object]]) -> None:
    backend = Path(os.environ["PULUMI_BACKEND_URL"].removeprefix("file://"))
    path = backend / ".pulumi" / "stacks" / "dify" / f"{stack}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": 3, "checkpoint": {"latest": {"resources": resources}}}))


def main() -> None:
    arguments = sys.argv[1:]
    stack = option(arguments, "--stack")
    words = [word for word in arguments if not word.startswith("-")]
    with (HOME / "calls.jsonl").open("a") as calls:
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PULUMI", "DIFY_KIT"))}
        calls.write(json.dumps({"args": arguments, "environment": kept, "pid": os.getpid()}) + "\n")
    file = Path(option(arguments, "--config-file") or f"Pulumi.{stack}.yaml")
    if words[:2] == ["stack", "init"]:
        document = (yaml.safe_load(file.read_text()) if file.exists() else None) or {}
        file.write_text(yaml.safe_dump({**document, "encryptionsalt": "v1:salt"}))
        write_state(stack, [])
    if words[:2] == ["stack", "rm"]:
        Path(
            os.environ["PULUMI_BACKEND_URL"].removeprefix("file://"), f".pulumi/stacks/dify/{stack}.json"
        ).unlink()
    if words[:2] == ["config", "set"]:
        (HOME / "stdin").write_text(sys.stdin.read())
    if words[:2] == ["config", "set-all"]:
        document = yaml.safe_load(file.read_text()) or {}
        given = json.loads(os.environ["PULUMI_OPTION_JSON"])
        document["config"] = (document.get("config") or {}) | {
            key: {"secure": f"v1:{len(entry['value'])}"}
            if entry["secret"]
            else entry.get("objectValue", entry["value"])
            for key, entry in given.items()
        }
        file.write_text(yaml.safe_dump(document))
    if words[:2] == ["config", "rm"] and "--path" not in arguments:
        document = yaml.safe_load(file.read_text())
        del document["config"][words[2]]
        file.write_text(yaml.safe_dump(document))
    scenes = json.loads((HOME / "scenes.json").read_text()) if (HOME / "scenes.json").exists() else {}
    scene = scenes.get(words[0], {})
    if scene.get("polite", True):
        signal.signal(signal.SIGTERM, leave)
    else:
        signal.signal(signal.SIGTERM, lambda *_: (HOME / "ignored").touch())
    if log := option(arguments, "--event-log"):
        Path(log).write_text(scene.get("events", ""))
    sys.stdout.write(scene.get("stdout", ""))
    sys.stderr.write(scene.get("stderr", ""))
    sys.stdout.flush()
    (HOME / "playing").touch()
    time.sleep(scene.get("seconds", 0))
    sys.exit(scene.get("code", 0))


main()
