"""nginx's configuration as a resource: a change goes live in the running container, or not at all.

Written beside the running configuration, checked by nginx itself in its own container, switched, reloaded, and
believed only once nginx answers with the new revision: `nginx -t` and `nginx -s reload` exit with 0 in several
cases in which the old configuration stays.
"""

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
from pulumi import dynamic

from infra.edge.live_files import completed
from infra.edge.paths import RELEASES_DIRECTORY, USAGE_DIRECTORY
from infra.resources.edge_container import EdgeContainer
from infra.resources.release_container import ContainerError

LIVE_SECONDS = 15.0
# A port that another process holds is tried five times by nginx within 2.5 s. What it still complains about
# after this time will not go away.
COMPLAINT_SECONDS = 4.0
START_SECONDS = 20.0
# A recreated container starts with what its volume has; it needs a moment to answer.
ANSWER_SECONDS = 5.0
_PLACE = re.compile(re.escape(RELEASES_DIRECTORY) + r"/[0-9a-f-]+/(?P<path>[^:\s]+):(?P<line>\d+)")


class ConfigurationRejectedError(Exception):
    """The configuration did not go live; the one before it still runs."""


def located(said: str, files: Mapping[str, str], templates: Mapping[str, str]) -> str:
    """Return nginx's complaint with the template, its line and its text in the place of the rendered file.

    A rendered line is searched in its template; where it was put together from values, the line of the
    rendered file is named instead. `templates` maps a rendered file to its template's path.
    """
    found = _PLACE.search(said)
    if found is None:
        return said.strip()
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
    reason = said[: found.start()].strip().removesuffix(" in").strip()
    return f"{place}: {text!r}: {reason}" if text else f"{place}: {reason}"


def _words_of(output: str) -> str:
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


def go_live(edge: EdgeContainer, props: Mapping[str, Any]) -> None:
    """Bring a configuration into the container. Raises ConfigurationRejectedError; then the old one runs on."""
    revision, files = _completed(edge, props)
    private, templates = props["private_files"], props["templates"]
    before = edge.current()
    if before == revision and edge.wait_for(revision, ANSWER_SECONDS):
        return
    if before != revision:
        # Pulumi's numbers are floats, and no uid is one.
        edge.write(revision, files, private, int(props["owner"]))
        edge.own(USAGE_DIRECTORY, int(props["owner"]))
    verdict = edge.accepts(revision)
    if verdict.code != 0:
        reason = located(_words_of(verdict.output), files, templates)
        stays = (
            "nginx rejects the new configuration, and the old one stays" if before else "nginx rejects this"
        )
        raise ConfigurationRejectedError(f"{stays}: {reason}")
    if not edge.started():
        # A container without a configuration that works waits for one, and then starts nginx by itself.
        edge.switch(revision)
        if not edge.wait_for(revision, START_SECONDS):
            raise ContainerError(
                f"nginx does not answer {START_SECONDS:.0f} s after it got its configuration; last log "
                f"lines:\n{edge.last_logs()}"
            )
        return
    edge.switch(revision)
    began = time.time()
    reloaded = edge.reload()
    if reloaded.code == 0 and _went_live(edge, revision, began):
        edge.keep([revision, before])
        return
    edge.switch(before)
    edge.reload()
    said = edge.complaints(began) or reloaded.output.strip() or "it gave no reason"
    raise ConfigurationRejectedError(
        f"nginx did not take the new configuration (revision {revision}), and the old one ({before}) is back: "
        f"{located(_words_of(said), files, templates)}"
    )


def _went_live(edge: EdgeContainer, revision: str, began: float) -> bool:
    while time.time() - began < LIVE_SECONDS:
        if edge.wait_for(revision, 1.0):
            return True
        if time.time() - began > COMPLAINT_SECONDS and edge.complaints(began):
            return False
    return False


class LiveConfigProvider(dynamic.ResourceProvider):
    """Pickled by reference: this module must keep its name."""

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Give a new container its configuration."""
        go_live(EdgeContainer(props["container"]), props)
        return dynamic.CreateResult(props["container"][:12], props)

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.DiffResult:
        """Another revision is an update; another container gets everything anew."""
        moved = _olds.get("container") != _news.get("container")
        changed = moved or any(_olds.get(key) != _news.get(key) for key in ("revision", "direct"))
        return dynamic.DiffResult(
            changes=changed, replaces=["container"] if moved else [], delete_before_replace=True
        )

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.UpdateResult:
        """Let the new configuration go live."""
        go_live(EdgeContainer(_news["container"]), _news)
        return dynamic.UpdateResult(_news)

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        """Report the revision that runs, and the configuration gone with its container."""
        edge = EdgeContainer(props["container"])
        if edge.status() != "running":
            return dynamic.ReadResult("", {})
        # The service behind it may be away at this moment: then nobody knows a better address.
        wanted, running = _completed(edge, props)[0], edge.running()
        same = running == wanted or (wanted == props["revision"] and running.startswith(wanted))
        return dynamic.ReadResult(id_, props if same else {**props, "revision": running or "none"})

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """Nothing: the configuration goes with the container and its volume."""


class LiveConfig(dynamic.Resource):
    """The configuration that nginx runs in `container` (an id).

    `direct` names a service behind it whose address goes into the configuration: `service`, `container` (its id),
    `network`, `port`; empty for none.

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
