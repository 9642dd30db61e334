"""What the provider of the gateway's configuration decides, with a container that exists on paper only."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from infra.resources import gateway_config
from infra.resources.configuration import ConfigurationRejectedError
from infra.resources.gateway_config import (
    GatewayConfigProvider,
    Health,
    go_live,
    revision_of,
)
from infra.resources.revision_container import ContainerError
from infra.settings.oauth_clients import digest_of

CLIENTS = {"bot": {"tenant": "acme", "scopes": ["chat"], "secrets": ["hash"]}}
PROBLEM = "tenants.json: tenants.acme.app_key must be a Dify app key"


class PaperContainer:
    """A gateway that takes a release when `takes` says so; `link` and `written` are what lies on its volume."""

    def __init__(self, takes: Callable[[str], bool], link: str = "") -> None:
        self.takes = takes
        self.link = link
        self.served = link
        self.written: dict[str, Mapping[str, str]] = {link: {}} if link else {}
        self.answers = True

    def current(self) -> str:
        return self.link

    def write(self, revision: str, files: Mapping[str, str], private: Mapping[str, str], owner: int) -> None:
        assert not files, "nothing here is for everybody"
        assert owner == 1002
        self.written[revision] = private

    def switch(self, revision: str) -> None:
        assert revision in self.written
        self.link = revision

    def forget(self) -> None:
        self.link = ""

    def discard(self, revision: str) -> None:
        assert revision != self.link
        del self.written[revision]

    def keep(self, revisions: list[str]) -> None:
        self.written = {name: self.written[name] for name in revisions}

    def last_logs(self) -> str:
        return "its last words"

    def health(self) -> Health:
        if not self.answers:
            return Health()
        refused = bool(self.link) and not self.takes(self.link)
        if self.link and not refused:
            self.served = self.link
        problems = (PROBLEM,) if refused else ()
        return Health(revisions=(self.served,), workers=2, problems=problems)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LIVE_SECONDS", "ANSWER_SECONDS"):
        monkeypatch.setattr(gateway_config, name, 0.3)
    monkeypatch.setattr(gateway_config, "REFUSAL_SECONDS", 0.0)


@pytest.fixture
def props(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "clients.json"
    path.write_text(json.dumps({"clients": CLIENTS}))
    path.chmod(0o600)
    return {
        "container": "c",
        "directory": "/etc/dify-gateway",
        "files": {"config.json": "{}", "tenants.json": "{}", "keys.json": "{}"},
        "clients_file": str(path),
        "clients_digest": digest_of(path.read_bytes()),
        "own_clients": {"canary": {"tenant": "canary"}},
        "owner": 1002.0,
        "workers": 2.0,
    }


def test_clients_of_the_file_and_of_the_program_go_live_together(props: dict[str, Any]) -> None:
    gateway = PaperContainer(lambda _: True, "old")

    revision = go_live(gateway, props)  # type: ignore[arg-type]

    assert list(gateway.written) == [revision]
    assert json.loads(gateway.written[revision]["clients.json"]) == {
        "clients": {**CLIENTS, "canary": {"tenant": "canary"}}
    }


def test_refused_configuration_is_taken_back(props: dict[str, Any]) -> None:
    gateway = PaperContainer(lambda revision: revision == "old", "old")

    with pytest.raises(ConfigurationRejectedError, match=r"and the old one stays: tenants\.json"):
        go_live(gateway, props)  # type: ignore[arg-type]

    assert (gateway.link, list(gateway.written)) == ("old", ["old"])


def test_refused_first_configuration_leaves_nothing(props: dict[str, Any]) -> None:
    gateway = PaperContainer(lambda _: False)

    with pytest.raises(ConfigurationRejectedError, match=r"rejects the new configuration: tenants\.json"):
        go_live(gateway, props)  # type: ignore[arg-type]

    assert (gateway.link, gateway.written) == ("", {})


def test_gateway_that_says_nothing_is_told_with_its_log(props: dict[str, Any]) -> None:
    gateway = PaperContainer(lambda _: True, "old")
    gateway.answers = False

    with pytest.raises(ContainerError, match="its last words"):
        go_live(gateway, props)  # type: ignore[arg-type]

    assert gateway.link == "old"


def test_run_that_was_cut_off_is_carried_on(props: dict[str, Any]) -> None:
    revision = revision_of(props)
    written = PaperContainer(lambda _: True, "old")
    written.written[revision] = {"half": "of it"}
    switched = PaperContainer(lambda _: True, revision)

    for gateway in (written, switched):
        assert go_live(gateway, props) == revision  # type: ignore[arg-type]
        assert gateway.link == revision
    assert "clients.json" in written.written[revision]


@pytest.mark.parametrize("changed", ["container", "files", "clients_digest", "own_clients"])
def test_what_counts_as_a_change(props: dict[str, Any], changed: str) -> None:
    state = {**props, "revision": revision_of(props)}
    new = {**props, changed: "another"}

    found = GatewayConfigProvider().diff("id", state, new)

    assert found.changes
    assert found.replaces == (["container"] if changed == "container" else [])


def test_a_moved_file_is_no_change(props: dict[str, Any]) -> None:
    state = {**props, "revision": revision_of(props)}

    assert not GatewayConfigProvider().diff("id", state, {**props, "clients_file": "/elsewhere"}).changes


def test_another_release_in_the_container_is_drift(
    props: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Drifted(PaperContainer):
        def status(self) -> str:
            return "running"

    monkeypatch.setattr(gateway_config, "_container", lambda _: Drifted(lambda _: True, "by-hand"))
    state = {**props, "revision": revision_of(props)}

    read = GatewayConfigProvider().read("id", state)

    assert read.outs is not None
    assert read.outs["revision"] == "by-hand"
    assert GatewayConfigProvider().diff("id", dict(read.outs), props).changes


@pytest.mark.parametrize("text", ["{", '{"clients": 1}'])
def test_file_that_broke_meanwhile_is_named(props: dict[str, Any], text: str) -> None:
    Path(props["clients_file"]).write_text(text)

    with pytest.raises(ConfigurationRejectedError, match=r"clients\.json: "):
        go_live(PaperContainer(lambda _: True), props)  # type: ignore[arg-type]
