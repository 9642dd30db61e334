"""The whole program with models for Dify, against a recorder: what is declared, in what order, where the key is."""

import hashlib
import json
from typing import Any

import pytest
import yaml
from pulumi.runtime import mocks

from infra.edge.llm import SECRETS_FILE
from support.configuration import SECRETS
from tests.unit.recording import CONTAINER, DYNAMIC, Recorder, run_program
from tests.unit.workspace_upstream import PLUGIN, PROVIDER

KEY = SECRETS["llmDifyKey"]
MODEL = f"model-{PROVIDER}-llm-gpt-4.1"


def program(**plain: Any) -> Recorder:
    llm = {"enabled": True, "models": {"gpt-4.1": ["holysheep"]}}
    return run_program(
        {"llm": llm, **plain}, secrets={"llmKeys": json.dumps({"holysheep": "hs-0123456789-0123456789-wxyz"})}
    )


def test_stack_with_the_llm_proxy_declares_plugin_models_and_defaults() -> None:
    declared = program().of(DYNAMIC)

    assert declared[f"plugin-{PLUGIN}"]["pinned"] == ""
    assert declared[MODEL]["secrets"] == {"api_key": KEY}
    assert declared["default-models"]["models"] == {"llm": {"provider": PROVIDER, "model": "gpt-4.1"}}
    # Dify checks a credential by a call through the edge.
    names = [one.name for one in program().resources]
    assert names.index("nginx") < names.index(MODEL) < names.index("default-models")


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        ({}, "modelProviders.proxy.file"),
        (
            {"plugins": [{"identifier": "acme/other"}, {"identifier": PLUGIN}]},
            "'modelProviders.plugins[1].file'",
        ),
    ],
)
def test_plugin_has_the_command_that_names_its_package(given: dict[str, Any], setting: str) -> None:
    command = program(modelProviders=given).of(DYNAMIC)[f"plugin-{PLUGIN}"]["by_file"]

    assert command.endswith(f"dify-kit set {setting} /path/to/package.difypkg --stack unit")


def test_stack_without_the_proxy_declares_none_of_them() -> None:
    declared = run_program().of(DYNAMIC)

    of_services = {f"plugin-daemon-{part}" for part in ("pids", "ready")}
    assert not [
        name
        for name in declared.keys() - of_services
        if name.startswith(("plugin-", "model-", "default-models"))
    ]


def test_hash_of_difys_key_goes_live_and_the_key_is_in_no_container_and_no_file() -> None:
    recorder = program()
    config = recorder.of(DYNAMIC)["nginx-config"]

    caller = json.loads(config["private_files"][SECRETS_FILE])["callers"][
        hashlib.sha256(KEY.encode()).hexdigest()
    ]
    assert (caller["name"], caller["internal"]) == ("key:dify", True)
    assert KEY not in json.dumps([config["files"], config["private_files"]])
    assert not [name for name, one in recorder.of(CONTAINER).items() if KEY in json.dumps(one, default=str)]


def test_example_app_names_the_default_model() -> None:
    recorder = program(apps=["llm-chat"])
    document = yaml.safe_load(recorder.of(DYNAMIC)["app-llm-chat"]["dsl"])

    [model] = [
        node["data"]["model"] for node in document["workflow"]["graph"]["nodes"] if "model" in node["data"]
    ]
    assert (model["provider"], model["name"]) == (PROVIDER, "gpt-4.1")


def test_models_wait_for_the_live_configuration_and_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    awaited: dict[str, set[str]] = {}
    register: Any = mocks.MockMonitor.RegisterResource

    def remembering(monitor: mocks.MockMonitor, request: Any) -> Any:
        awaited[request.name] = {urn.rpartition("::")[2] for urn in request.dependencies}
        return register(monitor, request)

    monkeypatch.setattr(mocks.MockMonitor, "RegisterResource", remembering)
    # Other settings than those of the other tests, whose run is kept.
    program(logLevel="DEBUG")

    # nginx takes Dify's key only once its configuration is live, which is before it is ready.
    assert {"nginx-ready", f"plugin-{PLUGIN}"} <= awaited[MODEL]
    assert "nginx-config" in awaited["nginx-ready"]
    assert MODEL in awaited["default-models"]
    assert not awaited["app-echo-chat"] & {MODEL, f"plugin-{PLUGIN}"}
