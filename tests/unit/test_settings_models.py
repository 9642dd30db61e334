"""The models of Dify's workspace among the settings, right and wrong."""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from infra.settings import apps
from infra.settings.given import SEALED, SECRET_KEYS, Given
from infra.settings.model_providers import ENDPOINT, ModelProviders
from infra.settings.program import load
from infra.settings.proxy_keys import new_secret
from infra.settings.secrets import OUTBOUND_SECRETS
from infra.settings.stack import Reading, Settings, read
from support.configuration import SECRETS, configure, resolved, settings
from tests.guide_blocks import named
from tests.unit.workspace_upstream import NEW, PLUGIN, PROVIDER, package

LLM = {"enabled": True, "models": {"gpt-4.1": ["holysheep"]}, "embeddings": {"e-small": ["holysheep"]}}
LLM_KEYS = {"llmKeys": json.dumps({"holysheep": "hs-" + "k" * 40})}
OPENAI = "langgenius/openai/openai"


def stack(
    given: Mapping[str, Any] | None = None, secrets: Mapping[str, str] | None = None, **more: Any
) -> Settings:
    """Return the settings of a stack whose LLM proxy is on."""
    plain = {"llm": LLM, "modelProviders": given or {}, **more}
    return settings(plain, {**LLM_KEYS, **(secrets or {})})


def models(
    given: Mapping[str, Any] | None = None, secrets: Mapping[str, str] | None = None
) -> ModelProviders:
    return stack(given, secrets).model_providers


def told(given: Mapping[str, Any], secrets: Mapping[str, str] | None = None, **more: Any) -> str:
    with pytest.raises(pulumi.RunError) as caught:
        stack(given, secrets, **more)
    return str(caught.value)


def reading(plain: Mapping[str, Any], *, without: str = "") -> Reading:
    """Read as the command line does, with every secret but one."""
    sealed = dict.fromkeys(SECRET_KEYS - OUTBOUND_SECRETS - {without}, SEALED)
    base = {"images": "local", "vectorStore": "pgvector", "adminEmail": "admin@example.com"}
    return read(Given.of({**sealed, **base, **plain}, sealed), "unit")


# --- the models of the LLM proxy


def test_without_the_llm_proxy_a_stack_has_no_models() -> None:
    assert settings().model_providers == ModelProviders(plugins=(), credentials=(), defaults={})


def test_new_stack_with_the_proxy_has_its_models_and_default_models() -> None:
    found = models()

    assert [(one.plugin, one.pinned, one.file) for one in found.plugins] == [(PLUGIN, "", None)]
    assert [(one.provider, one.model, one.type) for one in found.credentials] == [
        (PROVIDER, "gpt-4.1", "llm"),
        (PROVIDER, "e-small", "text-embedding"),
    ]
    assert {kind: one.model for kind, one in found.defaults.items()} == {
        "llm": "gpt-4.1",
        "text-embedding": "e-small",
    }


def test_credential_leads_to_the_listener_inside_and_its_values_are_texts() -> None:
    chat, embedding = models(
        {"proxy": {"fields": {"gpt-4.1": {"context_size": 1000000, "stream": True}}}}
    ).credentials

    assert chat.fields == {
        "endpoint_url": "http://nginx:8082/llm/v1",
        "mode": "chat",
        "context_size": "1000000",
        "function_calling_type": "tool_call",
        "stream": "true",
    }
    assert embedding.fields == {"endpoint_url": ENDPOINT, "context_size": "8191", "max_chunks": "16"}
    assert json.loads(resolved({"it": chat.secrets})["it"]) == {"api_key": SECRETS["llmDifyKey"]}


def test_dify_is_a_caller_inside_the_stack_without_limits_of_its_own() -> None:
    llm = stack().llm
    assert llm is not None

    [key] = llm.keys
    assert key.sha256 == hashlib.sha256(SECRETS["llmDifyKey"].encode()).hexdigest()
    assert (key.name, key.internal, key.requests_per_minute, key.concurrent) == ("dify", True, 0, 0)


def test_old_key_is_accepted_and_not_used_while_it_is_changed() -> None:
    new, old = new_secret(), new_secret()
    found = stack(secrets={"llmDifyKey": f"{new} {old}"})

    assert found.llm is not None
    assert [key.sha256 for key in found.llm.keys] == [
        hashlib.sha256(one.encode()).hexdigest() for one in (new, old)
    ]
    assert json.loads(resolved({"it": found.model_providers.credentials[0].secrets})["it"]) == {
        "api_key": new
    }


def test_malformed_key_is_told_once_without_its_text() -> None:
    said = told({}, {"llmDifyKey": "dkp_" + "!" * 43})

    assert said.count("dify:llmDifyKey: ") == 1
    assert "dify-kit keys rotate dify --stack unit`" in said
    assert "!!!" not in said


def test_stack_of_an_earlier_version_keeps_working_and_is_told() -> None:
    found = reading({"llm": LLM}, without="llmDifyKey")

    assert found.problems == ()
    assert found.settings.model_providers.credentials == ()
    [warning] = found.warnings
    assert warning.startswith("dify:modelProviders.proxy.enabled: auto: ")
    assert "dify-kit keys rotate dify --stack unit`" in warning


def test_required_proxy_needs_key_and_llm() -> None:
    found = reading({"llm": LLM, "modelProviders": {"proxy": {"enabled": True}}}, without="llmDifyKey")
    assert ["dify:llmDifyKey: the secret is not set" in line for line in found.problems] == [True]

    off = reading({"modelProviders": {"proxy": {"enabled": True}}})
    assert ["modelProviders.proxy.enabled" in line for line in off.problems] == [True]


def test_proxy_that_dify_does_not_use_gives_no_models_and_no_warning() -> None:
    found = reading({"llm": LLM, "modelProviders": {"proxy": {"enabled": False}}}, without="llmDifyKey")

    assert (found.problems, found.warnings) == ((), ())
    assert found.settings.model_providers.plugins == ()


def test_without_the_marketplace_the_plugin_needs_a_file(tmp_path: Path) -> None:
    closed = {"llm": LLM, "plugins": {"marketplace": False}}
    assert ["plugins.marketplace is false" in line for line in reading(closed).warnings] == [True]

    file = tmp_path / "plugin.difypkg"
    file.write_bytes(package())
    found = reading({**closed, "modelProviders": {"proxy": {"file": str(file)}}})
    assert (found.problems, found.warnings) == ((), ())
    [plugin] = found.settings.model_providers.plugins
    assert plugin.pinned == f"{PLUGIN}:0.0.63@{hashlib.sha256(package()).hexdigest()}"


# --- other plugins and models


def test_other_provider_comes_with_its_plugin_and_its_secret() -> None:
    found = models(
        {
            "proxy": {"enabled": False},
            "plugins": [{"identifier": "langgenius/openai"}],
            "models": [
                {"provider": OPENAI, "credentials": {"api_protocol": "chat"}, "secret": "openai"},
                {"provider": PROVIDER, "model": "m", "type": "llm", "credentials": {"context_size": 8}},
            ],
            "defaults": {"llm": {"provider": OPENAI, "model": "gpt-4.1"}},
        },
        {"modelCredentials": json.dumps({"openai": {"openai_api_key": "sk-1"}})},
    )

    whole, one = found.credentials
    assert (whole.model, whole.fields, whole.plugin) == ("", {"api_protocol": "chat"}, "langgenius/openai")
    assert json.loads(resolved({"it": whole.secrets})["it"]) == {"openai_api_key": "sk-1"}
    assert (one.model, one.fields) == ("m", {"context_size": "8"})
    assert found.defaults["llm"].provider == OPENAI


def test_example_of_the_guide_is_complete() -> None:
    block = yaml.safe_load(named("docs/guides/models.md", "yaml", "config:\n  dify:modelProviders:"))
    given = block["config"]["dify:modelProviders"]
    [name] = [one["secret"] for one in given["models"]]
    found = settings(
        {"modelProviders": given}, {"modelCredentials": json.dumps({name: {"openai_api_key": "sk-1"}})}
    ).model_providers

    [plugin], [credential] = found.plugins, found.credentials
    # Without a version: the checksum of the marketplace's package is not known here.
    assert (plugin.plugin, plugin.pinned) == (credential.plugin, "")
    assert json.loads(resolved({"it": credential.secrets})["it"]) == {"openai_api_key": "sk-1"}
    assert found.defaults["llm"].provider == credential.provider


def test_default_model_may_be_another_one_of_the_stack() -> None:
    given = {"models": [{"provider": PROVIDER, "model": "m", "type": "llm"}], "defaults": {"llm": "m"}}

    assert models(given).defaults["llm"].model == "m"


def test_package_is_known_by_its_file(tmp_path: Path) -> None:
    file = tmp_path / "plugin.difypkg"
    file.write_bytes(package("1.2.3", "acme"))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    [_, own] = models({"plugins": [{"file": str(file), "sha256": digest, "keep": False}]}).plugins

    assert (own.plugin, own.keep) == ("acme/openai_api_compatible", False)
    assert own.pinned == f"acme/openai_api_compatible:1.2.3@{digest}"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"plugins": [{"identifier": "openai"}]}, "plugins[0].identifier: 'openai': is not a plugin"),
        ({"plugins": [{"identifier": f"{PLUGIN}:1@{'0' * 63}"}]}, "is not a plugin"),
        ({"plugins": {}}, "modelProviders.plugins: '{}': not a list"),
        ({"plugins": ["x"]}, "modelProviders.plugins[0]: 'x': not an object"),
        ({"plugins": [{"file": "plugin.difypkg"}]}, "is not an absolute path"),
        ({"plugins": [{"file": "/none.difypkg"}]}, "cannot be read: No such file"),
        ({"plugins": [{"file": __file__}]}, "is not a plugin package"),
        ({"plugins": [{"identifier": PLUGIN, "versoin": "1"}]}, "plugins[0].versoin"),
        ({"models": [{"provider": "openai"}]}, "models[0].provider: 'openai': is not a provider"),
        ({"models": [{"provider": OPENAI, "model": "m"}]}, "models[0].type: ''"),
        ({"models": [{"provider": OPENAI, "model": "m", "type": "chat"}]}, "models[0].type: 'chat'"),
        ({"models": [{"provider": OPENAI, "name": "n" * 31}]}, "models[0].name"),
        ({"models": [{"provider": OPENAI, "credentials": {"a": [1]}}]}, "models[0].credentials.a"),
        ({"models": [{"provider": OPENAI}] * 2}, "has two credentials"),
        ({"models": [{"provider": PROVIDER, "model": "gpt-4.1", "type": "llm"}]}, "has two credentials"),
        ({"models": [{"provider": OPENAI, "secret": "x"}]}, "dify:modelCredentials.x: is not set"),
        ({"defaults": {"chat": "gpt-4.1"}}, "modelProviders.defaults: 'chat'"),
        ({"defaults": {"llm": "gpt-9"}}, "defaults.llm: 'gpt-9': is not one model of this stack"),
        (
            {"defaults": {"llm": {"provider": "openai", "model": "m"}}},
            "defaults.llm.provider: 'openai': is not a provider; use author/plugin/provider",
        ),
        ({"defaults": {"llm": {"provider": OPENAI, "model": ""}}}, "defaults.llm.model: ''"),
        ({"proxy": {"enabled": "maybe"}}, "proxy.enabled: 'maybe'"),
        ({"proxy": {"plugin": "x"}}, "proxy.plugin: 'x': is not a plugin"),
        ({"proxy": {"fields": {"gpt-9": {}}}}, "proxy.fields: 'gpt-9': is not served"),
        ({"proxy": {"fields": {"gpt-4.1": "x"}}}, "proxy.fields.gpt-4.1: 'x'"),
    ],
)
def test_wrong_value_is_told_with_its_key(given: dict[str, Any], said: str) -> None:
    assert said in told(given).replace('"', "'")


def test_secret_that_is_stored_in_plain_text_is_refused() -> None:
    configure({"modelCredentials": {"openai": {"openai_api_key": "sk-secret-value"}}})

    with pytest.raises(pulumi.RunError, match="dify:modelCredentials: is stored in plain text") as caught:
        load(pulumi.Config("dify"), "unit")
    assert "sk-secret-value" not in str(caught.value)


@pytest.mark.parametrize(
    "field", ["api_key", "access_token", "password", "client-secret", "apiKey", "auth_credentials"]
)
def test_secret_among_plain_fields_is_refused_with_the_command(field: str) -> None:
    entry = {"provider": OPENAI, "model": "m", "type": "llm", "credentials": {field: "sk-hunter2"}}

    first = told({"models": [entry]})
    named = told(
        {"models": [entry | {"secret": "mine"}]}, {"modelCredentials": json.dumps({"mine": {"a": "b"}})}
    )

    assert (
        f"dify:modelProviders.models[0].credentials.{field}: holds a secret, and settings are not encrypted"
        in first
    )
    assert (
        f"dify-kit set modelCredentials.own.{field} --stack unit`, and add `secret: own` to the entry"
        in first
    )
    assert f"dify-kit set modelCredentials.mine.{field} --stack unit`" in named
    assert "add `secret:" not in named
    assert "hunter2" not in first + named


@pytest.mark.parametrize(
    "proxy",
    [
        {"chat": {"api_key": "sk-hunter2"}},
        {"embedding": {"token": "sk-hunter2"}},
        {"fields": {"gpt-4.1": {"api_key": "sk-hunter2"}}},
    ],
)
@pytest.mark.parametrize("enabled", [True, False])
def test_secret_among_fields_of_the_proxy_is_refused(proxy: dict[str, Any], enabled: bool) -> None:
    said = told({"proxy": {**proxy, "enabled": enabled}})

    (problem,) = [line for line in said.splitlines() if "holds a secret" in line]
    assert problem.startswith("  - dify:modelProviders.proxy.")
    assert "modelCredentials" in problem
    assert "hunter2" not in said


def test_fields_that_only_name_a_token_are_plain() -> None:
    fields = {"token_param_name": "max_tokens", "max_tokens_to_sample": 4096, "mode": "chat", "api_key": ""}

    [*_, found] = models(
        {"models": [{"provider": OPENAI, "model": "m", "type": "llm", "credentials": fields}]}
    ).credentials

    assert found.fields == {"token_param_name": "max_tokens", "max_tokens_to_sample": "4096", "mode": "chat"}


def test_plugin_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    said = told({"plugins": [{"identifier": NEW}, {"identifier": "acme/other"}, {"identifier": PLUGIN}]})

    assert (
        f"dify:modelProviders.plugins[2]: '{PLUGIN}': is the plugin of plugins[0] again; list it once" in said
    )
    file = tmp_path / "plugin.difypkg"
    file.write_bytes(package())
    assert "plugins[1]" in told({"plugins": [{"identifier": PLUGIN}, {"file": str(file)}]})


def test_secret_fields_that_no_model_takes_are_reported() -> None:
    given = {"models": [{"provider": OPENAI, "secret": "openai"}]}
    values = {"modelProviders": given, "modelCredentials": {"openai": SEALED, "opnai": SEALED}}

    found = reading(values)

    # Only a warning: `dify-kit set` stores the fields before the model that takes them.
    assert found.problems == ()
    [warning] = found.warnings
    assert warning.startswith("dify:modelCredentials.opnai: no entry of modelProviders.models takes it")
    assert "dify-kit unset modelCredentials.opnai --stack unit`" in warning


def test_wrong_checksum_and_a_foreign_package_are_told(tmp_path: Path) -> None:
    file = tmp_path / "plugin.difypkg"
    file.write_bytes(package("1", "acme"))

    assert "is not the checksum" in told({"plugins": [{"file": str(file), "sha256": "0" * 64}]})
    assert "is a package of acme/" in told({"proxy": {"file": str(file)}})


def test_package_that_dify_would_refuse_for_its_size_is_told(tmp_path: Path) -> None:
    file = tmp_path / "plugin.difypkg"
    file.write_bytes(package())
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("wheels/big", bytes(2 * 1024 * 1024))

    said = told({"plugins": [{"file": str(file)}]}, plugins={"maxPackageMegabytes": 1})
    assert "is larger than plugins.maxPackageMegabytes" in said


def test_marketplace_plugin_with_the_marketplace_off_is_told() -> None:
    given = {"proxy": {"enabled": False}, "plugins": [{"identifier": NEW}]}

    assert "plugins.marketplace is false" in told(given, plugins={"marketplace": False})


# --- apps


@pytest.mark.parametrize("name", ["llm-chat", "knowledge-chat"])
def test_app_with_a_model_gets_the_default_one(name: str) -> None:
    found = stack(apps=[name])
    default = found.model_providers.defaults["llm"]

    dsl = apps.dsl_of(apps.app_file(name), default.provider, default.model)
    assert f"provider: {PROVIDER}" in dsl
    assert "name: gpt-4.1" in dsl
    assert "dify-kit" not in dsl


def test_app_that_needs_a_model_where_none_is_names_the_fix() -> None:
    configure({"apps": ["llm-chat"]})

    with pytest.raises(pulumi.RunError, match=r"dify:apps: .*llm-chat.*`.*dify-kit up --llm --stack unit`"):
        load(pulumi.Config("dify"), "unit")
