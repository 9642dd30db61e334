"""The resources of plugins and models against the stand-in, whose answers are the recorded ones, per release."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.resources import console_providers
from infra.resources.console_client import Console
from infra.resources.console_session import Sessions
from infra.resources.console_transport import Answer, Request
from infra.resources.model_client import Credential, Models, Place, ValidationError
from infra.resources.model_resource_providers import (
    CredentialProvider,
    DefaultModelsProvider,
    PluginProvider,
)
from infra.resources.plugin_client import Plugins
from tests.unit.standin_app import ADMIN, Instance
from tests.unit.standin_upstream import KEY, Upstream, compatible, listening, openai

PLUGIN = "langgenius/openai_api_compatible"
PROVIDER = f"{PLUGIN}/openai_api_compatible"
OPENAI = "langgenius/openai/openai"
RELEASES = ("1.12.1", "1.14.2", "1.17.1")
ACCESS = {
    "container": "api",
    "console_url": "http://localhost:18100",
    "email": ADMIN["email"],
    "password": ADMIN["password"],
}


@dataclass
class InProcess:
    """The way to an api of this process."""

    client: Any

    def identity(self) -> str:
        return str(id(self))

    def read_note(self, path: str) -> str:
        raise AssertionError(path)

    def send(self, request: Request) -> Answer:
        sent: dict[str, Any] = {"json": request.json_body} if request.json_body is not None else {}
        if request.content:
            sent = {"data": request.content}
        answer = self.client.open(request.path, method=request.method, headers=dict(request.headers), **sent)
        return Answer(status=answer.status_code, headers=tuple(answer.headers), body=answer.text)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with listening() as found:
        yield found


@pytest.fixture(params=RELEASES)
def console(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Console]:
    """The console of an instance of each release, without signatures; the providers reach it too."""
    instance = Instance(monkeypatch, tmp_path, request.param, FORCE_VERIFYING_SIGNATURE="false")
    transport = InProcess(instance.modules["api"].create_app().test_client(use_cookies=False))
    monkeypatch.setattr(console_providers, "ContainerTransport", lambda _: transport)
    yield Console(
        transport=transport,
        url=ACCESS["console_url"],
        email=ACCESS["email"],
        password=ACCESS["password"],
        sessions=Sessions(),
    )
    instance.stop_daemon()


def fields(upstream: Upstream) -> dict[str, str]:
    return {"endpoint_url": upstream.url, "mode": "chat", "context_size": "128000"}


def props(upstream: Upstream, **changes: Any) -> dict[str, Any]:
    return {
        **ACCESS,
        "provider": PROVIDER,
        "model": "gpt-4.1",
        "model_type": "llm",
        "credential_name": "dify-kit",
        "fields": fields(upstream),
        "secrets": {"api_key": KEY},
        "drift": "",
        "credential_id": None,
    } | changes


def installed(console: Console) -> str:
    return Plugins(console=console, pause=0.05).ensure(PLUGIN, "", "").identifier


@pytest.mark.usefixtures("console")
def test_model_of_the_marketplaces_plugin_lives_from_create_to_delete(upstream: Upstream) -> None:
    plugin: Any = PluginProvider()
    inputs = {
        **ACCESS,
        "plugin": PLUGIN,
        "pinned": "",
        "file": "",
        "by_file": "",
        "keep": False,
        "installed": None,
    }
    made_plugin = plugin.create(inputs)
    assert made_plugin.outs["installed"].startswith(f"{PLUGIN}:")

    provider: Any = CredentialProvider()
    made = provider.create(props(upstream))
    assert provider.read(made.id, made.outs).outs == made.outs
    calls = len(upstream.asked)
    again = provider.create(props(upstream))
    assert again.outs["credential_id"] == made.outs["credential_id"]
    assert len(upstream.asked) == calls

    changed = props(upstream, fields={**fields(upstream), "context_size": "64000"})
    assert provider.diff(made.id, made.outs, changed).changes
    updated = provider.update(made.id, made.outs, changed)
    assert provider.read(made.id, updated.outs).outs["drift"] == ""
    assert provider.read(made.id, made.outs).outs["drift"] == "changed in Dify: context_size"

    defaults: Any = DefaultModelsProvider()
    wanted = {**ACCESS, "models": {"llm": {"provider": PROVIDER, "model": "gpt-4.1"}}}
    assert not defaults.diff("", defaults.read("", defaults.create(wanted).outs).outs, wanted).changes

    provider.delete(made.id, updated.outs)
    assert provider.read(made.id, updated.outs).id == ""
    # A deleted model is made again.
    assert provider.create(props(upstream)).outs["credential_id"] != made.outs["credential_id"]
    plugin.delete(PLUGIN, made_plugin.outs)
    assert plugin.read(PLUGIN, made_plugin.outs).id == ""


def test_upstreams_refusal_is_in_the_message(console: Console, upstream: Upstream) -> None:
    installed(console)
    models = Models(console=console)
    place = Place(provider=PROVIDER, model="gpt-4.1", type="llm")
    wrong = Credential(
        name="dify-kit", values={**fields(upstream), "api_key": "dkp_wrong"}, secrets=frozenset({"api_key"})
    )

    with pytest.raises(ValidationError, match="status code 401"):
        models.save(place, wrong)
    assert models.look(place, "dify-kit").id == ""


def test_packages_are_uploaded_and_replace_each_other_with_their_credentials(
    console: Console, upstream: Upstream, tmp_path: Path
) -> None:
    found = []
    models = Models(console=console)
    place = Place(provider=PROVIDER, model="gpt-4.1", type="llm")
    good = Credential(
        name="dify-kit", values={**fields(upstream), "api_key": KEY}, secrets=frozenset({"api_key"})
    )
    for version in ("0.0.63", "0.0.64"):
        file = tmp_path / f"{version}.difypkg"
        file.write_bytes(compatible(version))
        # Another pin than what is installed: the file decides.
        found.append(Plugins(console=console, pause=0.05).ensure(PLUGIN, version, str(file)).identifier)
        first = models.save(place, good)

    assert [one.partition("@")[0] for one in found] == [f"{PLUGIN}:0.0.63", f"{PLUGIN}:0.0.64"]
    assert models.look(place, "dify-kit").id == first
    assert len([one for one in upstream.asked if one[1]["model"] == "gpt-4.1"]) == 1


def test_credential_of_a_whole_provider_lives_from_create_to_delete(
    console: Console, upstream: Upstream, tmp_path: Path
) -> None:
    file = tmp_path / "openai.difypkg"
    file.write_bytes(openai("1.0.4"))
    Plugins(console=console, pause=0.05).ensure("langgenius/openai", "1.0.4", str(file))
    values = {
        "openai_api_base": upstream.url.removesuffix("/v1"),
        "api_protocol": "chat",
        "validate_model": "gpt-4.1",
    }
    inputs = props(
        upstream, provider=OPENAI, model="", model_type="", fields=values, secrets={"openai_api_key": KEY}
    )
    models = console.call("GET", f"/workspaces/current/model-providers/{OPENAI}/models")["data"]
    assert {(one["fetch_from"], one["status"]) for one in models} == {("predefined-model", "no-configure")}
    provider: Any = CredentialProvider()
    made = provider.create(inputs)
    assert made.id == OPENAI
    models = console.call("GET", f"/workspaces/current/model-providers/{OPENAI}/models")["data"]
    assert {one["status"] for one in models} == {"active"}
    assert provider.create(inputs).outs["credential_id"] == made.outs["credential_id"]
    assert provider.read(made.id, made.outs).outs == made.outs

    provider.delete(made.id, made.outs)
    assert provider.read(made.id, made.outs).id == ""
