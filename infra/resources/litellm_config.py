"""LiteLLM's configuration as a resource: what LiteLLM cannot read never goes live.

Written beside the running configuration, read by LiteLLM itself in its own container, switched, and the container
restarted in order: LiteLLM reads its configuration at its start only. Requests in flight are finished.
"""

import hashlib
import json
import re
import time
from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi import dynamic

from infra.resources.release_container import ContainerError, Ran, ReleaseContainer
from infra.services.litellm import ALIVE, CONFIG, DIRECTORY, REVISION_FILE, STOP_SECONDS

# Its start takes 10 to 15 s of a free core.
LIVE_SECONDS = 180.0
# A recreated container starts with what its volume has.
ANSWER_SECONDS = LIVE_SECONDS
# It takes 5 s of a free core, and less than what is waited for an answer of the engine.
CHECK_SECONDS, TIMED_OUT = 50, 124
# What LiteLLM's proxy does with its configuration, short of serving it. Its own words for what is wrong, in one line.
CHECK = """
import sys, yaml
try:
    with open(sys.argv[1], encoding="utf-8") as file:
        told = yaml.safe_load(file)
    from litellm import Router
    Router(model_list=told["model_list"], **(told.get("router_settings") or {}))
    told["general_settings"]["master_key"]
except Exception as problem:
    sys.exit("refused: " + type(problem).__name__ + ": " + " ".join(str(problem).split()))
"""
_KEY = re.compile(r"^\s*(?:api_key|master_key): *(\S.*?)\s*$", re.MULTILINE)


class LitellmRefusalError(Exception):
    """The configuration did not go live; the one before it still runs."""


class LitellmContainer(ReleaseContainer):
    """LiteLLM's container, by its id."""

    def __init__(self, container: str) -> None:
        super().__init__(container, DIRECTORY)

    def accepts(self, revision: str) -> Ran:
        """Let LiteLLM judge a configuration, in the container that will run it."""
        config = f"{DIRECTORY}/releases/{revision}/{CONFIG}"
        return self._run(["python3", "-c", CHECK, config], seconds=CHECK_SECONDS)

    def running(self) -> str:
        """Return the revision that answers, empty when none does."""
        told = self._run(["sh", "-c", f'python3 -c "$0" && cat {REVISION_FILE}', ALIVE])
        return told.output.strip().rsplit("/", 1)[-1] if told.code == 0 else ""

    def restart(self) -> None:
        """Let it end its requests, and start with what `current` points to."""
        self._api.restart(self._id, timeout=STOP_SECONDS)

    def forget(self) -> None:
        """Remove the link to what runs."""
        self._must("taking the configuration back", ["rm", "-f", f"{DIRECTORY}/current"], root=True)


def revision_of(files: Mapping[str, str]) -> str:
    """Return the name of a configuration: a digest of everything in it."""
    return hashlib.sha256(json.dumps(dict(files), sort_keys=True).encode()).hexdigest()[:12]


def masked(text: str, files: Mapping[str, str]) -> str:
    """Return text without the keys of a configuration."""
    for found in _KEY.findall(files.get(CONFIG, "")):
        key = found.strip("\"'")
        if key:
            text = text.replace(key, "****")
    return text


def go_live(litellm: LitellmContainer, props: Mapping[str, Any]) -> str:
    """Bring a configuration into the container and return its name.

    Raises LitellmRefusalError when LiteLLM does not take it; then the one before runs on, or is back.
    """
    files: Mapping[str, str] = props["files"]
    revision = revision_of(files)
    before = litellm.current()
    if before == revision and _wait(litellm, revision, ANSWER_SECONDS):
        return revision
    if before != revision:
        # Pulumi's numbers are floats, and no uid is one.
        litellm.write(revision, {}, files, int(props["owner"]))
    verdict = litellm.accepts(revision)
    stays = ", and the old one stays" if before and before != revision else ""
    if verdict.code != 0:
        if before != revision:
            litellm.discard(revision)
        if verdict.code == TIMED_OUT:
            raise ContainerError(
                f"LiteLLM did not read its new configuration within {CHECK_SECONDS} s{stays}; is the machine "
                "overloaded? Run the same command again"
            )
        said = masked(verdict.output.strip()[-1000:], files).removeprefix("refused: ")
        raise LitellmRefusalError(
            f"LiteLLM rejects the new configuration{stays}: {said}; look at dify:llm, and at a template of your own "
            "(litellm/config.yaml.j2) if you have one"
        )
    litellm.switch(revision)
    if before:
        litellm.restart()
    if _wait(litellm, revision, LIVE_SECONDS):
        # An old release holds keys that should be gone.
        litellm.keep([revision])
        return revision
    said = masked(litellm.last_logs(), files)
    if before and before != revision:
        litellm.switch(before)
        litellm.restart()
        _wait(litellm, before, LIVE_SECONDS)
        litellm.discard(revision)
    elif not before:
        litellm.forget()
        litellm.restart()
    raise ContainerError(
        f"LiteLLM does not answer with its new configuration {LIVE_SECONDS:.0f} s after it got it{stays}; last log "
        f"lines:\n{said}"
    )


def _wait(litellm: LitellmContainer, revision: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if litellm.running() == revision:
                return True
        except ContainerError:
            # It is on its way down or up, and runs no command.
            pass
        time.sleep(0.5)
    return False


class LitellmConfigProvider(dynamic.ResourceProvider):
    """Pickled by reference: this module must keep its name."""

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Give a new container its configuration."""
        revision = go_live(LitellmContainer(props["container"]), props)
        return dynamic.CreateResult(props["container"][:12], {**props, "revision": revision})

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.DiffResult:
        """Another configuration is an update; another container gets everything anew."""
        moved = _olds.get("container") != _news.get("container")
        changed = moved or _olds.get("revision") != revision_of(_news["files"])
        return dynamic.DiffResult(
            changes=changed, replaces=["container"] if moved else [], delete_before_replace=True
        )

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.UpdateResult:
        """Let the new configuration go live."""
        return dynamic.UpdateResult(
            {**_news, "revision": go_live(LitellmContainer(_news["container"]), _news)}
        )

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        """Report the release that runs, and the configuration gone with its container."""
        litellm = LitellmContainer(props["container"])
        if litellm.status() != "running":
            return dynamic.ReadResult("", {})
        running = litellm.running()
        same = running == props.get("revision")
        return dynamic.ReadResult(id_, props if same else {**props, "revision": running or "none"})

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """Nothing: the configuration goes with the container and its volume."""


class LitellmConfig(dynamic.Resource):
    """The configuration that LiteLLM runs in `container` (an id).

    Inputs: `files` (a secret) maps the name of a file in the release to its text; `owner` is the uid that alone reads
    them. Output: `revision`.
    """

    revision: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        container: pulumi.Input[str],
        files: pulumi.Input[Mapping[str, str]],
        owner: int,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {"container": container, "files": files, "owner": owner, "revision": None}
        super().__init__(LitellmConfigProvider(), name, props, opts)
