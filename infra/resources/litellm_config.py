"""LiteLLM's configuration as a resource: what LiteLLM cannot read never goes live.

LiteLLM reads its configuration at its start alone, so the container restarts. Requests in flight are finished.
"""

import hashlib
import json
import re
import time
from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi import dynamic

from infra.catalogue.container_paths import LITELLM_DIRECTORY
from infra.catalogue.health import LITELLM_ALIVE
from infra.catalogue.services import LITELLM, SERVICES
from infra.engine.runtime import Ran
from infra.resources.configuration import Change, ConfigurationProvider, ConfigurationRejectedError, Props
from infra.resources.revision_container import ContainerError, RevisionContainer
from infra.services.litellm import CONFIG, REVISION_FILE

# Its start takes 10 to 15 s of a free core.
LIVE_SECONDS = 180.0
ANSWER_SECONDS = LIVE_SECONDS
# The check takes 5 s of a free core. The limit is shorter than the wait for an answer of the engine.
CHECK_SECONDS, TIMED_OUT = 50, 124
# What LiteLLM's proxy does with its configuration, except for serving it. It prints LiteLLM's error in one line.
CHECK = """
import sys, yaml
try:
    with open(sys.argv[1], encoding="utf-8") as file:
        config = yaml.safe_load(file)
    from litellm import Router
    Router(model_list=config["model_list"], **(config.get("router_settings") or {}))
    config["general_settings"]["master_key"]
except Exception as problem:
    sys.exit("refused: " + type(problem).__name__ + ": " + " ".join(str(problem).split()))
"""
_KEY = re.compile(r"^\s*(?:api_key|master_key): *(\S.*?)\s*$", re.MULTILINE)


class LitellmContainer(RevisionContainer):
    """LiteLLM's container, by its reference."""

    def __init__(self, container: str) -> None:
        super().__init__(container, LITELLM_DIRECTORY)

    def accepts(self, revision: str) -> Ran:
        """Let LiteLLM read a configuration, in the container that will run it."""
        config = f"{LITELLM_DIRECTORY}/releases/{revision}/{CONFIG}"
        return self._run(["python3", "-c", CHECK, config], seconds=CHECK_SECONDS)

    def running(self) -> str:
        """Return the revision that answers, empty when none does."""
        ran = self._run(["sh", "-c", f'python3 -c "$0" && cat {REVISION_FILE}', LITELLM_ALIVE])
        return ran.output.strip().rsplit("/", 1)[-1] if ran.code == 0 else ""

    def restart(self) -> None:
        """Restart LiteLLM with what `current` points to; requests in flight are finished."""
        self._runtime.restart(SERVICES[LITELLM].stop_grace)


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


class _Change(Change):
    """A revision of LiteLLM's configuration. LiteLLM checks it in its container, and a restart takes it."""

    def __init__(self, litellm: LitellmContainer, props: Mapping[str, Any]) -> None:
        self._files: Mapping[str, str] = props["files"]
        super().__init__(litellm, revision_of(self._files))
        self.answer_seconds, self.live_seconds = ANSWER_SECONDS, LIVE_SECONDS
        self._litellm = litellm
        # Pulumi's numbers are floats, and no uid is one.
        self._owner = int(props["owner"])

    @property
    def _stays(self) -> str:
        return ", and the old one stays" if self.replaces else ""

    def write(self) -> None:
        self._litellm.write(self.revision, {}, self._files, self._owner)

    def check(self) -> Exception | None:
        checked = self._litellm.accepts(self.revision)
        if checked.code == 0:
            return None
        if checked.code == TIMED_OUT:
            return ContainerError(
                f"LiteLLM did not read its new configuration within {CHECK_SECONDS} s{self._stays}; is the machine "
                "overloaded? Run the same command again"
            )
        reason = masked(checked.output.strip()[-1000:], self._files).removeprefix("refused: ")
        return ConfigurationRejectedError(
            f"LiteLLM rejects the new configuration{self._stays}: {reason}; look at dify:llm, and at a template of "
            "your own (litellm/config.yaml.j2) if you have one"
        )

    def activate(self, *, running: bool) -> bool:
        if running:
            self._litellm.restart()
        return True

    def serves(self, revision: str, seconds: float, *, recovering: bool = False) -> bool:
        del recovering
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if self._litellm.running() == revision:
                    return True
            except ContainerError:
                # It is stopping or starting, and runs no command.
                pass
            time.sleep(0.5)
        return False

    def failure(self) -> Exception:
        return ContainerError(
            f"LiteLLM does not answer with its new configuration {LIVE_SECONDS:.0f} s after it got it{self._stays}; "
            f"last log lines:\n{masked(self._litellm.last_logs(), self._files)}"
        )


def go_live(litellm: LitellmContainer, props: Mapping[str, Any]) -> str:
    """Bring a configuration into the container and return its revision. Raises what `Change.go_live` raises."""
    return _Change(litellm, props).go_live()


class LitellmConfigProvider(ConfigurationProvider):
    """Pickled by reference: this module must keep its name."""

    def bring(self, props: dict[str, Any]) -> dict[str, Any]:
        """Let LiteLLM's configuration go live."""
        return {**props, "revision": go_live(LitellmContainer(props["container"]), props)}

    def changed(self, olds: Props, news: Props) -> bool:
        """Compare what the configuration consists of."""
        return bool(olds.get("revision") != revision_of(news["files"]))

    def container(self, props: Props) -> LitellmContainer:
        """Return LiteLLM's container."""
        return LitellmContainer(props["container"])

    def running(self, container: LitellmContainer, props: Props) -> str:
        """Return the revision that answers."""
        del props
        return container.running()


class LitellmConfig(dynamic.Resource):
    """The configuration that LiteLLM runs in `container` (a reference).

    Inputs: `files` (a secret) maps the name of a file in the revision to its text; only `owner`, a uid, can read
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
