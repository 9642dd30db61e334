"""What the live configurations share: a change goes live in the running container, or not at all.

A revision is written beside the running one, checked, and made the current one. It counts as live once the service
itself names it; otherwise the revision before it becomes the current one again.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from pulumi import dynamic

from infra.engine.runtime import RUNNING
from infra.resources.revision_container import RevisionContainer

Props = Mapping[str, Any]


class ConfigurationRejectedError(Exception):
    """The configuration did not go live; the one before it still runs."""


class Change(ABC):
    """One revision on its way into a container: the steps are the same for all services, the means are not.

    `before` is the revision that was current at the start, empty for none.
    """

    # How long a container that was created again may take to answer with what its volume has, in seconds.
    answer_seconds: float
    # How long the service may take to serve another revision, in seconds.
    live_seconds: float

    def __init__(self, container: RevisionContainer, revision: str) -> None:
        self.target = container
        self.revision = revision
        self.before = ""

    @property
    def replaces(self) -> bool:
        """Whether another revision runs and stays when this one does not go live."""
        return self.before not in {"", self.revision}

    @abstractmethod
    def write(self) -> None:
        """Write the files of the revision into the container."""

    def check(self) -> Exception | None:
        """Return why the service would not take the written revision, or None."""
        return None

    def activate(self, *, running: bool) -> bool:
        """Make the service take the current revision; return False when that failed immediately.

        `running`: the service runs a revision already. Without one it waits for its first and starts by itself.
        """
        del running
        return True

    @abstractmethod
    def serves(self, revision: str, seconds: float, *, recovering: bool = False) -> bool:
        """Wait until the service serves a revision. `recovering`: it has just refused another one."""

    def kept(self) -> Sequence[str]:
        """Return the revisions that stay on the volume once this one is live."""
        return [self.revision]

    @abstractmethod
    def failure(self) -> Exception:
        """Return why the revision did not go live; called while it is still the current one."""

    def go_live(self) -> str:
        """Bring the revision into the container and return its name.

        Raises ConfigurationRejectedError when the service refuses it, and ContainerError when the service does not
        answer; the revision before it runs then.
        """
        self.before = self.target.current()
        if self.before == self.revision and self.serves(self.revision, self.answer_seconds):
            return self.revision
        if self.before != self.revision:
            self.write()
        if problem := self.check():
            if self.before != self.revision:
                self.target.discard(self.revision)
            raise problem
        self.target.switch(self.revision)
        if self.activate(running=bool(self.before)) and self.serves(self.revision, self.live_seconds):
            self.target.keep(self.kept())
            return self.revision
        problem = self.failure()
        self.take_back()
        raise problem

    def take_back(self) -> None:
        """Make the revision before this one the current one, or none when there was none."""
        if self.before == self.revision:
            return
        if self.before:
            self.target.switch(self.before)
        else:
            self.target.forget()
        self.activate(running=True)
        if self.before:
            self.serves(self.before, self.live_seconds, recovering=True)
        self.target.discard(self.revision)


class ConfigurationProvider(dynamic.ResourceProvider):
    """What Pulumi does with a live configuration. The state refers to the subclasses by module and name."""

    def bring(self, props: dict[str, Any]) -> dict[str, Any]:
        """Let the configuration go live and return the outputs of the resource."""
        raise NotImplementedError

    def changed(self, olds: Props, news: Props) -> bool:
        """Tell whether the inputs make another configuration."""
        raise NotImplementedError

    def container(self, props: Props) -> RevisionContainer:
        """Return the container that runs the configuration."""
        raise NotImplementedError

    def running(self, container: Any, props: Props) -> str:  # noqa: ANN401  # the subclass's own container
        """Return the revision that runs, by the name that the state has for it; empty when none answers."""
        raise NotImplementedError

    def create(self, props: dict[str, Any]) -> dynamic.CreateResult:
        """Give a new container its configuration."""
        return dynamic.CreateResult(props["container"][:12], self.bring(props))

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.DiffResult:
        """Another configuration is an update; another container gets everything again."""
        moved = _olds.get("container") != _news.get("container")
        return dynamic.DiffResult(
            changes=moved or self.changed(_olds, _news),
            replaces=["container"] if moved else [],
            delete_before_replace=True,
        )

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> dynamic.UpdateResult:
        """Let the new configuration go live."""
        return dynamic.UpdateResult(self.bring(_news))

    def read(self, id_: str, props: dict[str, Any]) -> dynamic.ReadResult:
        """Report the revision that runs, and the configuration gone with its container."""
        container = self.container(props)
        if container.status() != RUNNING:
            return dynamic.ReadResult("", {})
        running = self.running(container, props)
        same = running == props.get("revision")
        return dynamic.ReadResult(id_, props if same else {**props, "revision": running or "none"})

    def delete(self, _id: str, props: dict[str, Any]) -> None:
        """Do nothing: the configuration goes with the container and its volume."""
