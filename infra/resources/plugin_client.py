"""Plugins of a workspace by Dify's console API: upload, install, replace, uninstall.

The daemon's installations are tasks. A finished one is deleted after a minute, and then asking for it is a 500: only
the list of plugins tells what is installed.
"""

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from infra.resources.console_client import Console, ConsoleError, NotFoundError, UnavailableError
from infra.resources.console_session import LoginError
from infra.resources.console_transport import TransportError
from infra.resources.workspace import call, patiently

# The daemon itself ends an installation after ten minutes.
INSTALL_SECONDS = 660
# Between the end of a task and the plugin in the list.
LISTED_SECONDS = 60
# A daemon on a busy machine needs 41 s for two plugins.
START_SECONDS = 180
PAUSE_SECONDS = 1.0
# A busy api fails to answer for a task now and then; one that fails so often in a row has deleted it.
UNANSWERED = 10
PAGE = 256
# The end of uv's output has the cause.
SHOWN = 600
PACKAGE, MARKETPLACE = "package", "marketplace"
_Found = TypeVar("_Found")
_SIGNATURE = "bad signature"
_UNREACHED = "Reached maximum retries"


@dataclass(frozen=True, kw_only=True)
class Installed:
    """An installed plugin. `identifier` is author/name:version@sha256."""

    installation: str
    identifier: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Plugins:
    """The plugins of the console's workspace. `pause` and the seconds are smaller in tests.

    `by_file` is the command that gives a package as a file, for a workspace without a way to Dify's marketplace.
    """

    console: Console
    by_file: str = ""
    start_seconds: float = START_SECONDS
    install_seconds: float = INSTALL_SECONDS
    pause: float = PAUSE_SECONDS

    def find(self, plugin: str) -> Installed | None:
        """Return the installation of `author/name`, None when there is none."""
        found: dict[str, Any] = call(self.console, "GET", f"/plugin/list?page=1&page_size={PAGE}")
        for one in found.get("plugins", []):
            if one.get("plugin_id") == plugin:
                return Installed(
                    installation=str(one.get("installation_id") or one.get("id")),
                    identifier=str(one["plugin_unique_identifier"]),
                    source=str(one.get("source", "")),
                )
        return None

    def ensure(self, plugin: str, pinned: str, file: str) -> Installed:
        """Install the plugin, or the pinned version of it. Without a pinned one, the installed version stays."""
        found = self._patiently(lambda: self.find(plugin), plugin)
        if found and pinned in {"", found.identifier}:
            return found
        source = PACKAGE if file else MARKETPLACE
        wanted = self._upload(plugin, Path(file)) if file else pinned or self._newest(plugin)
        if found and wanted == found.identifier:
            return found
        # Only the start is repeated: another one while the first runs would be another task.
        task = self._patiently(lambda: self._start(plugin, wanted, source), plugin)
        return self._wait(plugin, wanted, task)

    def uninstall(self, plugin: str) -> None:
        """Uninstall a plugin; one that is gone already is fine."""
        found = self.find(plugin)
        if found:
            call(self.console, "POST", "/plugin/uninstall", {"plugin_installation_id": found.installation})

    def _patiently(self, action: Callable[[], _Found], plugin: str) -> _Found:
        return patiently(action, seconds=self.start_seconds, what=f"plugin {plugin}")

    def _newest(self, plugin: str) -> str:
        found = self._patiently(lambda: self._latest(plugin), plugin)
        if not found:
            raise ConsoleError(self._no_version(plugin))
        return found

    def _latest(self, plugin: str) -> str:
        """Return the identifier of the newest version in the marketplace; empty without one, or without a way there."""
        answer = call(self.console, "POST", "/plugin/list/latest-versions", {"plugin_ids": [plugin]})
        found = (answer.get("versions") or {}).get(plugin) or {}
        return str(found.get("unique_identifier") or "")

    def _no_version(self, plugin: str) -> str:
        return (
            f"plugin {plugin}: Dify finds no version of it in its marketplace: it has no way there, or there is no "
            f"such plugin. Without a network, {self._as_file}"
        )

    @property
    def _as_file(self) -> str:
        command = f": `{self.by_file}`" if self.by_file else ""
        return f"give the package as a file{command} (docs/guides/models.md#without-a-network)"

    def _upload(self, plugin: str, file: Path) -> str:
        kind, body = _multipart(file.name, file.read_bytes())
        try:
            answer = self._patiently(
                lambda: call(self.console, "POST", "/plugin/upload/pkg", content=(kind, body)),
                plugin,
            )
        except ConsoleError as problem:
            hint = ""
            if _SIGNATURE in str(problem):
                hint = "; sign it with a key of yours, or set dify:plugins.verifySignature to false"
            raise type(problem)(f"plugin {plugin}: {file}: {problem}{hint}") from None
        identifier = str(answer.get("unique_identifier", ""))
        if identifier.partition(":")[0] != plugin:
            raise ConsoleError(f"plugin {plugin}: Dify read {identifier or 'nothing'} from {file}")
        return identifier

    def _start(self, plugin: str, wanted: str, source: str) -> str:
        """Start to install, or to replace another version. Return the task; empty when there is nothing to do."""
        found = self.find(plugin)
        if found and found.identifier == wanted:
            return ""
        path = f"/plugin/install/{'pkg' if source == PACKAGE else source}"
        body: dict[str, Any] = {"plugin_unique_identifiers": [wanted]}
        if found:
            # Installing next to another version would leave that one in use. The route of GitHub downloads nothing.
            path = f"/plugin/upgrade/{'github' if source == PACKAGE else source}"
            body = {
                "original_plugin_unique_identifier": found.identifier,
                "new_plugin_unique_identifier": wanted,
            }
        if found and source == PACKAGE:
            version = wanted.partition(":")[2].partition("@")[0]
            body |= {"repo": plugin, "version": version, "package": f"{plugin.rpartition('/')[2]}.difypkg"}
        try:
            answer = call(self.console, "POST", path, body)
        except UnavailableError as problem:
            # Without a way to the marketplace an installation says so; to an upgrade Dify answers a bare 500.
            if source == MARKETPLACE and not self._latest(plugin):
                raise ConsoleError(f"{self._no_version(plugin)}. Dify: {problem}") from None
            raise
        except ConsoleError as problem:
            hint = f"; Dify has no way to its marketplace: {self._as_file}" * (_UNREACHED in str(problem))
            raise ConsoleError(f"plugin {plugin}: {problem}{hint}") from None
        return str(answer.get("task_id") or "")

    def _wait(self, plugin: str, wanted: str, task: str) -> Installed:
        """Wait until the task is over and the list has what is wanted. Raises ConsoleError."""
        finished, unanswered, last = not task, 0, "running"
        deadline = time.monotonic() + (LISTED_SECONDS if finished else self.install_seconds)
        while True:
            if not finished:
                try:
                    finished, last = self._ended(plugin, task)
                    unanswered = 0
                except (NotFoundError, UnavailableError) as problem:
                    unanswered, last = unanswered + 1, str(problem)
                    finished = unanswered >= UNANSWERED
                if finished:
                    deadline = min(deadline, time.monotonic() + LISTED_SECONDS)
            if (finished or unanswered) and (found := self._listed(plugin, wanted)):
                return found
            if time.monotonic() > deadline:
                raise ConsoleError(f"plugin {plugin}: {wanted} is not installed in time; its task: {last}")
            time.sleep(self.pause)

    def _listed(self, plugin: str, wanted: str) -> Installed | None:
        """Return the wanted version when Dify lists it; None while it does not, or does not answer."""
        try:
            found = self.find(plugin)
        except UnavailableError:
            return None
        return found if found and found.identifier == wanted else None

    def _ended(self, plugin: str, task: str) -> tuple[bool, str]:
        """Return whether a task is over, and its status. Raises ConsoleError for one that failed."""
        found = call(self.console, "GET", f"/plugin/tasks/{task}").get("task") or {}
        status = str(found.get("status", ""))
        if status == "failed":
            lines = "\n".join(str(one.get("message", "")) for one in found.get("plugins", [])).splitlines()
            said = " ".join(line.strip() for line in lines if not line.startswith("DEBUG "))
            # Failed tasks stay in the console until they are deleted. The cause matters more than one that stays.
            with suppress(ConsoleError, LoginError, TransportError):
                call(self.console, "POST", f"/plugin/tasks/{task}/delete")
            raise ConsoleError(
                f"plugin {plugin}: its installation failed: ...{said[-SHOWN:]}. Where its Python packages cannot be "
                "reached, set dify:plugins.pipMirrorUrl, or use a package with its wheels "
                "(docs/guides/models.md#without-a-network)"
            )
        return status == "success", status


def _multipart(name: str, content: bytes) -> tuple[str, bytes]:
    """Return content type and body of a form with one file, in the field that Dify reads."""
    boundary = secrets.token_hex(16)
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="pkg"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return (
        f"multipart/form-data; boundary={boundary}",
        head.encode() + content + f"\r\n--{boundary}--\r\n".encode(),
    )
