"""nginx's configuration as a resource.

nginx checks a revision in its own container and reloads. The revision counts as live only once nginx answers with it:
`nginx -t` and `nginx -s reload` exit with 0 in several cases in which the old configuration stays.
"""

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pulumi
from pulumi import dynamic

from infra.edge.live_files import completed
from infra.edge.paths import RELEASES_DIRECTORY, USAGE_DIRECTORY
from infra.resources.configuration import Change, ConfigurationProvider, ConfigurationRejectedError, Props
from infra.resources.edge_container import EdgeContainer
from infra.resources.revision_container import ContainerError

LIVE_SECONDS = 60.0
# A port that another process holds is tried five times by nginx within 2.5 s. What it still complains about
# after this time will not go away.
COMPLAINT_SECONDS = 4.0
# Parsing takes half a second on an idle machine, and tens of seconds on a busy one.
START_SECONDS = 120.0
# A recreated container starts with what its volume has; it needs a moment to answer.
ANSWER_SECONDS = 5.0
_PLACE = re.compile(re.escape(RELEASES_DIRECTORY) + r"/[0-9a-f-]+/(?P<path>[^:\s]+):(?P<line>\d+)")


def located(complaint: str, files: Mapping[str, str], templates: Mapping[str, str]) -> str:
    """Return nginx's complaint with the template, its line and its text instead of the rendered file's.

    A rendered line is searched in its template; where it was put together from values, the line of the
    rendered file is named instead. `templates` maps a rendered file to its template's path.
    """
    found = _PLACE.search(complaint)
    if found is None:
        return complaint.strip()
    path, number = found["path"], int(found["line"])
    lines = files.get(path, "").splitlines()
    text = lines[number - 1].strip() if 0 < number <= len(lines) else ""
    template = templates.get(path, path)
    place = f"{template}, line {number} of what it renders to"
    source = Path(template)
    if text and source.is_file():
        same = [
            index
            for index, line in enumerate(source.read_text(encoding="utf-8").splitlines(), start=1)
            if line.strip() == text
        ]
        if len(same) == 1:
            place = f"{template}, line {same[0]}"
    reason = complaint[: found.start()].strip().removesuffix(" in").strip()
    return f"{place}: {text!r}: {reason}" if text else f"{place}: {reason}"


def _reason_in(output: str) -> str:
    """Return nginx's own reason from what `nginx -t` printed."""
    lines = [line for line in output.splitlines() if "[emerg]" in line or "[alert]" in line]
    return re.sub(r"^.*?\[(?:emerg|alert)\]\s*(?:\d+#\d+:)?\s*", "", lines[0]) if lines else output.strip()


def _completed(edge: EdgeContainer, props: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the name and the files of what goes live: the rendered ones, and what only the engine knows."""
    revision, files, direct = str(props["revision"]), dict(props["files"]), props.get("direct") or {}
    address = edge.address_of(direct["container"], direct["network"]) if direct else ""
    if not address:
        return revision, files
    return completed(revision, files, service=direct["service"], address=address, port=int(direct["port"]))


class _Change(Change):
    """A revision of nginx's configuration. nginx checks it itself, and a reload takes it."""

    answer_seconds = ANSWER_SECONDS
    live_seconds = LIVE_SECONDS

    def __init__(self, edge: EdgeContainer, props: Mapping[str, Any]) -> None:
        revision, self._files = _completed(edge, props)
        super().__init__(edge, revision)
        self._edge = edge
        self._props = props
        self._began = time.time()
        self._started = True
        self._reloaded = ""

    def write(self) -> None:
        # Pulumi's numbers are floats, and no uid is one.
        owner = int(self._props["owner"])
        self._edge.write(self.revision, self._files, self._props["private_files"], owner)
        self._edge.own(USAGE_DIRECTORY, owner)

    def check(self) -> Exception | None:
        checked = self._edge.accepts(self.revision)
        if checked.code == 0:
            return None
        stays = (
            "nginx rejects the new configuration, and the old one stays"
            if self.before
            else "nginx rejects this"
        )
        return ConfigurationRejectedError(f"{stays}: {self._located(checked.output)}")

    def activate(self, *, running: bool) -> bool:
        del running
        # A container without a configuration that works waits for one, and then starts nginx by itself.
        self._started = self._edge.started()
        if not self._started:
            return True
        self._began = time.time()
        reloaded = self._edge.reload()
        self._reloaded = reloaded.output.strip()
        return reloaded.code == 0

    def serves(self, revision: str, seconds: float, *, recovering: bool = False) -> bool:
        if recovering:
            return self._edge.wait_for(revision, seconds)
        if not self._started:
            return self._edge.wait_for(revision, START_SECONDS)
        began = time.time()
        while time.time() - began < seconds:
            if self._edge.wait_for(revision, 1.0):
                return True
            if time.time() - began > COMPLAINT_SECONDS and self._edge.complaints(self._began):
                return False
        return False

    def kept(self) -> Sequence[str]:
        return [self.revision, self.before]

    def failure(self) -> Exception:
        if not self._started:
            return ContainerError(
                f"nginx does not answer {START_SECONDS:.0f} s after it got its configuration; last log "
                f"lines:\n{self._edge.last_logs()}"
            )
        reason = self._edge.complaints(self._began) or self._reloaded or "it gave no reason"
        return ConfigurationRejectedError(
            f"nginx did not take the new configuration (revision {self.revision}), and the old one ({self.before}) is "
            f"back: {self._located(reason)}"
        )

    def take_back(self) -> None:
        # An nginx that is starting reads the revision at this moment; the next `up` finds it started.
        if self._started:
            super().take_back()

    def _located(self, output: str) -> str:
        return located(_reason_in(output), self._files, self._props["templates"])


class LiveConfigProvider(ConfigurationProvider):
    """Pickled by reference: this module must keep its name."""

    def bring(self, props: dict[str, Any]) -> dict[str, Any]:
        """Let nginx's configuration go live. The state has the name that the program gave it."""
        _Change(EdgeContainer(props["container"]), props).go_live()
        return props

    def changed(self, olds: Props, news: Props) -> bool:
        """Compare the revision, and the service whose address is in it."""
        return any(olds.get(key) != news.get(key) for key in ("revision", "direct"))

    def container(self, props: Props) -> EdgeContainer:
        """Return nginx's container."""
        return EdgeContainer(props["container"])

    def running(self, container: EdgeContainer, props: Props) -> str:
        """Return the revision that nginx answers with."""
        # Without the service behind it, its address is unknown: then any address of it counts as the same.
        wanted, running = _completed(container, props)[0], container.running()
        revision = str(props["revision"])
        same = running == wanted or (wanted == revision and running.startswith(wanted))
        return revision if same else running


class LiveConfig(dynamic.Resource):
    """The configuration that nginx runs in `container` (a reference of `infra.engine.runtime`).

    `direct` names a service behind it whose address goes into the configuration: `service`, `container` (its
    reference), `network`, `port`; empty for none.

    Inputs: `files` and `private_files` (readable by `owner`, a uid, alone) map a path below the configuration's
    directory to its text; `revision` names them all, and is what the status server's /revision answers with;
    `templates` maps a path to the template it was rendered from, for messages.
    """

    revision: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        container: pulumi.Input[str],
        files: pulumi.Input[Mapping[str, str]],
        private_files: pulumi.Input[Mapping[str, pulumi.Input[str]]],
        revision: pulumi.Input[str],
        templates: Mapping[str, str],
        direct: Mapping[str, pulumi.Input[str]],
        owner: int,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        props = {
            "container": container,
            "files": files,
            "private_files": private_files,
            "revision": revision,
            "templates": dict(templates),
            "direct": dict(direct),
            "owner": owner,
        }
        super().__init__(LiveConfigProvider(), name, props, opts)
