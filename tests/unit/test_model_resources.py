"""Plugins, credentials of models and default models: what is sent to Dify, and what Pulumi is told."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.resources import console_providers, model_client, plugin_client
from infra.resources.console_client import Console, ConsoleError, UnavailableError
from infra.resources.console_session import Sessions
from infra.resources.model_client import Credential, Models, Place, ValidationError, masked
from infra.resources.model_resource_providers import (
    CredentialProvider,
    DefaultModelsProvider,
    PluginProvider,
)
from infra.resources.plugin_client import Plugins
from tests.unit.workspace_upstream import NEW, OLD, PLUGIN, PROVIDER, STATUS_500, Workspace, package

KEY, OTHER_KEY = "dkp_" + "a" * 43, "dkp_" + "b" * 43
PLACE = Place(provider=PROVIDER, model="gpt-4.1", type="llm")
FIELDS = {"endpoint_url": "http://nginx:8082/llm/v1", "mode": "chat", "context_size": "128000"}
CREDENTIALS = f"/model-providers/{PROVIDER}/models/credentials"
ACCESS = {
    "container": "api",
    "console_url": "http://localhost",
    "email": "a@example.com",
    "password": "Pw1-secret",
}
COMMAND = "dify-kit set modelProviders.proxy.file /path/to/package.difypkg --stack dev"
WRONG_KEY = (
    'Credentials validation failed with status code 401 and response body {"error":{"message":"no key %s"}}'
)


@pytest.fixture
def workspace() -> Workspace:
    return Workspace(installed={PLUGIN: OLD})


@pytest.fixture(autouse=True)
def _behind_the_providers(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The providers reach the workspace, and wait for nothing."""
    monkeypatch.setattr(console_providers, "ContainerTransport", lambda _: workspace)
    for module in (model_client, plugin_client):
        monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)


def console(workspace: Workspace) -> Console:
    return Console(
        transport=workspace,
        url="http://localhost",
        email="a@example.com",
        password="Pw1-secret",
        sessions=Sessions(),
    )


def models(workspace: Workspace, **limits: Any) -> Models:
    return Models(console=console(workspace), **({"pause": 0.0, "active_seconds": 0.05} | limits))


def plugins(workspace: Workspace, **limits: Any) -> Plugins:
    return Plugins(console=console(workspace), **({"pause": 0.0} | limits))


def credential(key: str = KEY, **fields: str) -> Credential:
    return Credential(
        name="dify-kit", values={**FIELDS, **fields, "api_key": key}, secrets=frozenset({"api_key"})
    )


def props(**changes: Any) -> dict[str, Any]:
    """The inputs of a credential."""
    return {
        **ACCESS,
        "provider": PROVIDER,
        "model": "gpt-4.1",
        "model_type": "llm",
        "credential_name": "dify-kit",
        "fields": FIELDS,
        "secrets": {"api_key": KEY},
        "drift": "",
        "credential_id": None,
    } | changes


# --- credentials


def test_new_credential_is_stored_used_and_found_by_its_name(workspace: Workspace) -> None:
    made = models(workspace).save(PLACE, credential())

    stored = models(workspace).look(PLACE, "dify-kit")
    assert (stored.id, stored.state) == (made, "active")
    assert stored.values["api_key"] == masked(KEY)
    assert workspace.count("POST", CREDENTIALS) == 1


def test_same_values_are_not_stored_again_because_each_time_calls_the_upstream(workspace: Workspace) -> None:
    first = models(workspace).save(PLACE, credential())
    calls: list[dict[str, str]] = []
    workspace.upstream = lambda values: calls.append(values) or ""  # type: ignore[func-returns-value]

    assert models(workspace).save(PLACE, credential()) == first
    assert calls == []


def test_changed_value_is_stored_with_the_whole_key(workspace: Workspace) -> None:
    models(workspace).save(PLACE, credential())
    models(workspace).save(PLACE, credential(context_size="64000"))

    [(_, values)] = workspace.models["llm", "gpt-4.1"].credentials.values()
    assert (values["context_size"], values["api_key"]) == ("64000", KEY)
    assert workspace.count("PUT", CREDENTIALS) == 1


def test_field_that_the_provider_does_not_know_is_no_difference(workspace: Workspace) -> None:
    models(workspace).save(PLACE, credential(colour="red"))
    models(workspace).save(PLACE, credential(colour="red"))

    assert workspace.count("PUT", CREDENTIALS) == 0


def test_key_that_looks_the_same_is_stored_when_it_is_known_to_be_another(workspace: Workspace) -> None:
    other = KEY[:6] + "c" * 39 + KEY[-2:]
    assert masked(other) == masked(KEY)
    models(workspace).save(PLACE, credential())
    models(workspace).save(PLACE, credential(other), force=True)

    [(_, values)] = workspace.models["llm", "gpt-4.1"].credentials.values()
    assert values["api_key"] == other


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({}, {"display_name": "GPT"}, id="added"),
        pytest.param({"display_name": "GPT"}, {"display_name": "GPT 4.1"}, id="changed"),
        pytest.param({"display_name": "GPT"}, {}, id="removed"),
    ],
)
def test_field_that_was_added_changed_or_removed_is_stored(
    workspace: Workspace, before: dict[str, str], after: dict[str, str]
) -> None:
    provider: Any = CredentialProvider()
    made = provider.create(props(fields=FIELDS | before))
    news = props(fields=FIELDS | after)

    assert provider.diff(made.id, made.outs, news).changes
    updated = provider.update(made.id, made.outs, news)

    [(_, values)] = workspace.models["llm", "gpt-4.1"].credentials.values()
    assert values.get("display_name") == after.get("display_name")
    assert (updated.outs["fields"], updated.outs["drift"]) == (FIELDS | after, "")


def test_stored_values_are_not_stored_again_when_dify_is_away_afterwards(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time is a call of the upstream, also in the same run."""
    provider: Any = CredentialProvider()
    made = provider.create(props())
    answers = iter([STATUS_500])
    look = Workspace._get_models

    def once_away(one: Workspace, what: dict[str, Any]) -> tuple[int, Any]:
        stored = one.count("PUT", CREDENTIALS)
        return next(answers, None) or look(one, what) if stored else look(one, what)

    monkeypatch.setattr(Workspace, "_get_models", once_away)
    provider.update(made.id, made.outs, props(secrets={"api_key": OTHER_KEY}))

    assert next(answers, None) is None
    assert workspace.count("PUT", CREDENTIALS) == 1


def test_credential_of_another_is_left_and_the_kits_own_is_used(workspace: Workspace) -> None:
    models(workspace).save(PLACE, replace(credential(OTHER_KEY), name="by hand"))
    own = models(workspace).save(PLACE, credential())

    model = workspace.models["llm", "gpt-4.1"]
    assert model.current == own
    assert sorted(name for name, _ in model.credentials.values()) == ["by hand", "dify-kit"]


def test_model_that_was_deleted_or_disabled_in_the_console_is_used_again(workspace: Workspace) -> None:
    own = models(workspace).save(PLACE, credential())
    workspace.models["llm", "gpt-4.1"].current = ""
    assert models(workspace).look(PLACE, "dify-kit").state != "active"
    assert models(workspace).save(PLACE, credential()) == own

    workspace.models["llm", "gpt-4.1"].enabled = False
    models(workspace).save(PLACE, credential())
    assert models(workspace).look(PLACE, "dify-kit").state == "active"


@pytest.mark.parametrize("enabled", [True, False])
def test_credential_in_use_is_not_switched_to_while_its_plugin_starts(
    workspace: Workspace, enabled: bool
) -> None:
    """Dify lists no model then, and refuses to switch to the current credential."""
    own = models(workspace).save(PLACE, credential())
    workspace.models["llm", "gpt-4.1"].enabled = enabled
    workspace.unlisted = 3

    assert models(workspace, active_seconds=5.0).save(PLACE, credential()) == own
    assert workspace.count("POST", f"{CREDENTIALS}/switch") == 0
    assert models(workspace).look(PLACE, "dify-kit").state == "active"


def test_plugin_that_never_starts_is_told_by_what_dify_does_not_list(workspace: Workspace) -> None:
    models(workspace).save(PLACE, credential())
    workspace.unlisted = 1_000_000

    with pytest.raises(ConsoleError, match=r"gpt-4.1.*'not listed, as while its plugin does not run'"):
        models(workspace).save(PLACE, credential())


def test_model_that_is_disabled_is_enabled_after_another_credential_was_in_use(workspace: Workspace) -> None:
    own = models(workspace).save(PLACE, credential())
    model = workspace.models["llm", "gpt-4.1"]
    model.current, model.enabled = "", False

    assert models(workspace).save(PLACE, credential()) == own
    assert models(workspace).look(PLACE, "dify-kit").state == "active"
    assert workspace.count("POST", f"{CREDENTIALS}/switch") == 1


def test_model_that_has_the_name_of_one_of_the_provider_is_the_added_one(workspace: Workspace) -> None:
    workspace.predefined = ("gpt-4.1",)

    models(workspace).save(PLACE, credential())
    assert models(workspace).look(PLACE, "dify-kit").state == "active"
    workspace.models["llm", "gpt-4.1"].enabled = False
    assert models(workspace).look(PLACE, "dify-kit").state == "disabled"


def test_upstreams_refusal_is_told_in_its_words_without_the_key_and_changes_nothing(
    workspace: Workspace,
) -> None:
    models(workspace).save(PLACE, credential())
    workspace.upstream = lambda values: WRONG_KEY % values["api_key"]

    with pytest.raises(ValidationError) as caught:
        models(workspace).save(PLACE, credential(OTHER_KEY))

    said = str(caught.value)
    assert said.startswith(f"model gpt-4.1 of {PROVIDER}: ")
    assert "status code 401" in said
    assert "no key [hidden]" in said
    assert "`keys check`" in said
    assert OTHER_KEY not in said
    [(_, values)] = workspace.models["llm", "gpt-4.1"].credentials.values()
    assert values["api_key"] == KEY


def test_credential_is_saved_once_the_plugin_runs(workspace: Workspace) -> None:
    workspace.starting = 3

    assert models(workspace).save(PLACE, credential())
    assert workspace.count("POST", CREDENTIALS) == 4


def test_500_that_stays_is_an_error_that_names_its_possible_causes(workspace: Workspace) -> None:
    with pytest.raises(UnavailableError, match=r"gpt-4.1.*plugin that does not start.*500"):
        models(workspace, start_seconds=0.0).save(
            PLACE,
            Credential(name="dify-kit", values={"context_size": 128000}),  # type: ignore[dict-item]
        )


def test_missing_provider_is_an_error_with_the_setting_to_change(workspace: Workspace) -> None:
    workspace.installed = {}

    with pytest.raises(ConsoleError, match=r"does not exist.*dify:modelProviders.plugins"):
        models(workspace).save(PLACE, credential())


@pytest.mark.parametrize("release", ["1.17", "1.14.2"])
def test_deleting_takes_credential_and_model_on_every_release(workspace: Workspace, release: str) -> None:
    workspace.release = release
    models(workspace).save(PLACE, credential())

    models(workspace).delete(PLACE, "dify-kit")
    models(workspace).delete(PLACE, "dify-kit")

    assert workspace.models["llm", "gpt-4.1"].credentials == {}
    assert workspace.count("DELETE", f"/model-providers/{PROVIDER}/models") == 2
    assert workspace.count("DELETE", CREDENTIALS) == 1


def test_deleting_leaves_a_model_that_has_a_credential_of_another(workspace: Workspace) -> None:
    models(workspace).save(PLACE, credential())
    models(workspace).save(PLACE, replace(credential(OTHER_KEY), name="by hand"))

    models(workspace).delete(PLACE, "dify-kit")

    assert [name for name, _ in workspace.models["llm", "gpt-4.1"].credentials.values()] == ["by hand"]
    assert workspace.count("DELETE", f"/model-providers/{PROVIDER}/models") == 0


def test_resource_of_a_credential_lives_from_create_to_delete(workspace: Workspace) -> None:
    provider: Any = CredentialProvider()
    made = provider.create(props())
    assert made.id == f"{PROVIDER}/llm/gpt-4.1"
    assert provider.read(made.id, made.outs).outs == made.outs
    assert not provider.diff(made.id, made.outs, props()).changes

    news = props(secrets={"api_key": OTHER_KEY})
    assert provider.diff(made.id, made.outs, news).changes
    updated = provider.update(made.id, made.outs, news)
    [(_, values)] = workspace.models["llm", "gpt-4.1"].credentials.values()
    assert values["api_key"] == OTHER_KEY

    provider.delete(made.id, updated.outs)
    assert provider.read(made.id, updated.outs).id == ""


def test_refresh_finds_what_was_changed_in_the_console_and_the_next_up_undoes_it(
    workspace: Workspace,
) -> None:
    provider: Any = CredentialProvider()
    made = provider.create(props())
    [(_, values)] = workspace.models["llm", "gpt-4.1"].credentials.values()
    values["context_size"] = "1"

    seen = provider.read(made.id, made.outs).outs
    assert seen["drift"] == "changed in Dify: context_size"
    assert provider.diff(made.id, seen, props()).changes
    provider.update(made.id, seen, props())
    assert models(workspace).look(PLACE, "dify-kit").values["context_size"] == "128000"


def test_other_model_is_another_resource_and_another_address_is_not(workspace: Workspace) -> None:
    provider: Any = CredentialProvider()
    made = provider.create(props())

    assert provider.diff(made.id, made.outs, props(model="gpt-5")).replaces == ["model"]
    moved = props(console_url="https://dify.example.com")
    assert provider.diff(made.id, made.outs, moved).changes
    before = len(workspace.requests)
    assert provider.update(made.id, made.outs, moved).outs["credential_id"] == made.outs["credential_id"]
    assert len(workspace.requests) == before


def test_refresh_without_the_plugin_daemon_changes_nothing(workspace: Workspace) -> None:
    provider: Any = PluginProvider()
    made = provider.create(plugin_props())
    workspace.starting = 100

    assert provider.read(made.id, made.outs).outs == made.outs


# --- plugins


def plugin_props(**changes: Any) -> dict[str, Any]:
    return {
        **ACCESS,
        "plugin": PLUGIN,
        "pinned": "",
        "file": "",
        "by_file": COMMAND,
        "keep": True,
        "installed": None,
    } | changes


def file_of(directory: Path, version: str = "0.0.63") -> tuple[Path, str]:
    path = directory / f"plugin-{version}.difypkg"
    path.write_bytes(package(version))
    return path, f"{PLUGIN}:{version}@{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_newest_version_is_installed_where_none_is(workspace: Workspace) -> None:
    workspace.installed, workspace.market = {}, {PLUGIN: NEW}

    assert plugins(workspace).ensure(PLUGIN, "", "").identifier == NEW


def test_installed_version_stays_where_none_is_pinned(workspace: Workspace) -> None:
    workspace.market = {PLUGIN: NEW}

    assert plugins(workspace).ensure(PLUGIN, "", "").identifier == OLD
    assert [path for method, path in workspace.requests if method == "POST"] == []


def test_pinned_version_replaces_another_one(workspace: Workspace) -> None:
    workspace.market = {PLUGIN: NEW}

    assert plugins(workspace).ensure(PLUGIN, NEW, "").identifier == NEW
    assert workspace.count("POST", "/plugin/upgrade/marketplace") == 1


def test_package_is_uploaded_and_installed_without_the_marketplace(
    workspace: Workspace, tmp_path: Path
) -> None:
    workspace.installed, workspace.market = {}, {}
    file, identifier = file_of(tmp_path)

    assert plugins(workspace).ensure(PLUGIN, identifier, str(file)).identifier == identifier
    # Installed already: neither uploaded nor installed again.
    plugins(workspace).ensure(PLUGIN, identifier, str(file))
    assert workspace.count("POST", "/plugin/upload/pkg") == 1


def test_package_of_another_version_replaces_the_installed_one(workspace: Workspace, tmp_path: Path) -> None:
    file, identifier = file_of(tmp_path, "0.0.64")

    assert plugins(workspace).ensure(PLUGIN, identifier, str(file)).identifier == identifier
    assert workspace.count("POST", "/plugin/upgrade/github") == 1
    assert workspace.count("POST", "/plugin/install/pkg") == 0


def test_finished_task_that_dify_has_deleted_counts_when_the_plugin_is_listed(workspace: Workspace) -> None:
    workspace.installed, workspace.finished_tasks_are_gone = {}, True

    assert plugins(workspace).ensure(PLUGIN, "", "").identifier == OLD


def test_one_poll_that_fails_ends_nothing(workspace: Workspace) -> None:
    workspace.installed, workspace.uv = {}, "exit status 2"
    workspace.unanswered_tasks, workspace.running = 1, 3

    with pytest.raises(ConsoleError, match=r"its installation failed: .*exit status 2"):
        plugins(workspace).ensure(PLUGIN, "", "")


def test_task_that_is_never_answered_is_left_to_the_list_of_plugins(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.installed, workspace.uv, workspace.finished_tasks_are_gone = {}, "exit status 2", True
    monkeypatch.setattr(plugin_client, "LISTED_SECONDS", 0.0)

    with pytest.raises(ConsoleError, match=r"is not installed in time; its task: .*answered 500"):
        plugins(workspace).ensure(PLUGIN, "", "")
    polls = [path for method, path in workspace.requests if path.startswith("/plugin/tasks/")]
    assert len(polls) == plugin_client.UNANSWERED


def test_list_that_is_not_answered_means_not_yet(workspace: Workspace) -> None:
    workspace.installed, workspace.unanswered_lists = {}, 3

    # No patience but that of the installation.
    assert plugins(workspace, start_seconds=0.0).ensure(PLUGIN, "", "").identifier == OLD
    assert workspace.count("POST", "/plugin/install/marketplace") == 1


def test_cause_of_a_failed_installation_is_told_when_its_task_cannot_be_deleted(workspace: Workspace) -> None:
    workspace.installed, workspace.uv, workspace.tasks_can_be_deleted = {}, "exit status 2", False

    with pytest.raises(ConsoleError, match=r"its installation failed: .*exit status 2"):
        plugins(workspace, start_seconds=0.0).ensure(PLUGIN, "", "")


def test_failed_installation_ends_with_the_cause_and_leaves_no_task(workspace: Workspace) -> None:
    workspace.installed, workspace.uv = (
        {},
        "exit status 2\n" + "DEBUG looking\n" * 500 + "invalid peer certificate: UnknownIssuer",
    )

    with pytest.raises(
        ConsoleError,
        match=r"failed: ...failed to launch plugin: exit status 2 invalid.*UnknownIssuer.*dify:plugins.pipMirrorUrl",
    ):
        plugins(workspace).ensure(PLUGIN, "", "")
    assert workspace.tasks == {}


@pytest.mark.parametrize(
    ("installed", "pinned"),
    [
        pytest.param({}, "", id="the-newest"),
        pytest.param({}, NEW, id="a-pinned-one"),
        pytest.param({PLUGIN: OLD}, NEW, id="in-place-of-another"),
    ],
)
def test_without_a_network_the_error_names_the_command_for_a_file(
    workspace: Workspace, installed: dict[str, str], pinned: str
) -> None:
    """An upgrade without a way to the marketplace is answered by a bare 500."""
    workspace.installed, workspace.market = installed, {}
    provider: Any = PluginProvider()

    with pytest.raises(ConsoleError) as caught:
        provider.create(plugin_props(pinned=pinned))

    said = str(caught.value)
    assert f"give the package as a file: `{COMMAND}` (docs/guides/models.md#without-a-network)" in said
    assert ("answered 500" in said) == bool(installed)
    # It does not try for minutes.
    assert workspace.count("POST", "/plugin/upgrade/marketplace") == len(installed)


def test_refused_signature_names_the_setting(workspace: Workspace, tmp_path: Path) -> None:
    workspace.installed, workspace.signed_only = {}, True
    file, identifier = file_of(tmp_path)

    with pytest.raises(ConsoleError, match=r"bad signature.*dify:plugins.verifySignature"):
        plugins(workspace).ensure(PLUGIN, identifier, str(file))


def test_plugin_is_found_once_the_daemon_answers(workspace: Workspace) -> None:
    workspace.starting = 3

    assert plugins(workspace).ensure(PLUGIN, "", "").identifier == OLD


def test_resource_of_a_plugin_lives_from_create_to_delete(workspace: Workspace) -> None:
    provider: Any = PluginProvider()
    workspace.installed = {}
    made = provider.create(plugin_props())
    assert (made.id, made.outs["installed"]) == (PLUGIN, OLD)
    assert not provider.diff(made.id, made.outs, plugin_props()).changes

    # The marketplace's plugins are moved by Dify itself.
    workspace.installed, workspace.market = {PLUGIN: NEW}, {PLUGIN: OLD}
    seen = provider.read(made.id, made.outs).outs
    assert seen["installed"] == NEW
    assert not provider.diff(made.id, seen, plugin_props()).changes
    pinned = plugin_props(pinned=OLD)
    assert provider.diff(made.id, seen, pinned).changes
    assert provider.update(made.id, seen, pinned).outs["installed"] == OLD

    provider.delete(made.id, plugin_props())
    assert workspace.installed
    provider.delete(made.id, plugin_props(keep=False))
    assert workspace.installed == {}
    assert provider.read(made.id, made.outs).id == ""


# --- default models


def test_default_models_are_set_and_set_back(workspace: Workspace) -> None:
    for model in ("gpt-4.1", "deepseek-v3.2"):
        models(workspace).save(replace(PLACE, model=model), credential())
    provider: Any = DefaultModelsProvider()
    wanted = {**ACCESS, "models": {"llm": {"provider": PROVIDER, "model": "deepseek-v3.2"}}}
    made = provider.create(wanted)
    assert workspace.defaults["llm"]["model"] == "deepseek-v3.2"
    assert not provider.diff(made.id, provider.read(made.id, made.outs).outs, wanted).changes

    workspace.defaults["llm"] = {"provider": PROVIDER, "model": "gpt-4.1"}
    seen = provider.read(made.id, made.outs).outs
    assert provider.diff(made.id, seen, wanted).changes
    provider.update(made.id, seen, wanted)
    assert workspace.defaults["llm"]["model"] == "deepseek-v3.2"


def test_default_that_dify_does_not_have_is_its_own_words(workspace: Workspace) -> None:
    with pytest.raises(ConsoleError, match=r"Model nope does not exist"):
        models(workspace).set_defaults({"llm": {"provider": PROVIDER, "model": "nope"}})
    # Waiting does not bring it.
    assert workspace.count("POST", "/default-model") == 1


def test_default_is_set_once_its_plugin_has_started(workspace: Workspace) -> None:
    models(workspace).save(PLACE, credential())
    workspace.unlisted = 5

    models(workspace).set_defaults({"llm": {"provider": PROVIDER, "model": "gpt-4.1"}})

    assert workspace.defaults["llm"]["model"] == "gpt-4.1"
    assert workspace.count("POST", "/default-model") > 1


def test_default_whose_plugin_never_starts_is_an_error_in_difys_words(workspace: Workspace) -> None:
    models(workspace).save(PLACE, credential())
    workspace.unlisted = 1_000_000

    with pytest.raises(UnavailableError, match=r"plugin that does not start.*Model gpt-4.1 does not exist"):
        models(workspace, start_seconds=0.0).set_defaults({"llm": {"provider": PROVIDER, "model": "gpt-4.1"}})


def test_default_that_is_disabled_is_not_waited_for(workspace: Workspace) -> None:
    models(workspace).save(PLACE, credential())
    workspace.models["llm", "gpt-4.1"].enabled = False

    with pytest.raises(ConsoleError, match=r"Model gpt-4.1 does not exist"):
        models(workspace).set_defaults({"llm": {"provider": PROVIDER, "model": "gpt-4.1"}})
    assert workspace.count("POST", "/default-model") == 1
