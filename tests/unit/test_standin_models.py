"""The stand-in with a model: plugin, credential, an app with an LLM node, knowledge, and what fails."""

import importlib
import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.settings.apps import app_file
from tests.unit.standin_app import Instance
from tests.unit.standin_upstream import KEY, Upstream, listening

PROVIDER = "langgenius/openai_api_compatible/openai_api_compatible"
PLUGIN = "langgenius/openai_api_compatible"
CREDENTIALS = f"model-providers/{PROVIDER}/models/credentials"
MODEL = {"model": "gpt-4.1", "model_type": "llm"}
EMBEDDING = {"model": "text-embedding-3-small", "model_type": "text-embedding"}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """The endpoint that models are at."""
    with listening() as found:
        yield found


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Instance]:
    """An instance of the newest release."""
    one = Instance(monkeypatch, tmp_path, "1.17.1")
    yield one
    one.stop_daemon()


def install(instance: Instance) -> str:
    """Install the plugin of the stand-in's catalogue; return its identifier."""
    asked = {"plugin_ids": [PLUGIN]}
    latest = instance.workspace("POST", "plugin/list/latest-versions", json=asked).json["versions"][PLUGIN]
    identifier = str(latest["unique_identifier"])
    started = instance.workspace(
        "POST", "plugin/install/marketplace", json={"plugin_unique_identifiers": [identifier]}
    ).json
    task = f"plugin/tasks/{started['task_id']}"
    deadline = time.monotonic() + 10
    while instance.workspace("GET", task).json["task"]["status"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return identifier


def save(instance: Instance, upstream: Upstream, model: dict[str, str] = MODEL, **changes: Any) -> Any:
    """Save a credential."""
    values = {"endpoint_url": upstream.url, "api_key": KEY, "context_size": "128000", **changes}
    values |= {"max_chunks": "16"} if model == EMBEDDING else {"mode": "chat"}
    return instance.workspace("POST", CREDENTIALS, json={**model, "name": "dify-kit", "credentials": values})


def llm_app(**changes: Any) -> str:
    """Return an app with an LLM node between start and answer."""
    document = yaml.safe_load(app_file("echo-chat").read_text(encoding="utf-8"))
    graph = document["workflow"]["graph"]
    start, answer = graph["nodes"]
    data = {
        "type": "llm",
        "title": "LLM",
        "model": {
            "provider": PROVIDER,
            "name": "gpt-4.1",
            "mode": "chat",
            "completion_params": {"temperature": 0.2},
        },
        "prompt_template": [
            {"role": "system", "text": "Be brief. {{#context#}}"},
            {"role": "user", "text": "{{#sys.query#}}"},
        ],
        "context": {"enabled": False, "variable_selector": []},
        **changes,
    }
    answer["data"]["answer"] = "It says: {{#llm.text#}}!"
    graph["nodes"] = [start, {**start, "id": "llm", "data": data}, answer]
    _connect(graph)
    return str(yaml.safe_dump(document))


def _connect(graph: dict[str, Any]) -> None:
    edge, names = graph["edges"][0], [node["id"] for node in graph["nodes"]]
    graph["edges"] = [
        {**edge, "id": f"{one}-{other}", "source": one, "target": other} for one, other in pairwise(names)
    ]


def use(instance: Instance, dsl: str) -> str:
    """Import and publish an app; return a key for it."""
    app = instance.send(
        "POST", "/console/api/apps/imports", json={"mode": "yaml-content", "yaml_content": dsl}
    ).json["app_id"]
    instance.send("POST", f"/console/api/apps/{app}/workflows/publish", json={})
    return str(instance.send("POST", f"/console/api/apps/{app}/api-keys").json["token"])


def ask(instance: Instance, key: str, query: str = "good day", **more: Any) -> Any:
    """Send a chat message."""
    body = {"inputs": {}, "query": query, "user": "u1", "response_mode": "blocking", **more}
    return instance.send("POST", "/v1/chat-messages", json=body, headers={"Authorization": f"Bearer {key}"})


def events(text: str) -> list[dict[str, Any]]:
    """Return the events of a stream."""
    return [
        json.loads(block.removeprefix("data: ")) for block in text.split("\n\n") if block.startswith("data: ")
    ]


def test_a_saved_model_answers_a_chat(instance: Instance, upstream: Upstream) -> None:
    install(instance)
    saved = save(instance, upstream)
    upstream.asked.clear()

    answer = ask(instance, use(instance, llm_app()), auto_generate_name=False).json

    assert saved.status_code == 201, saved.text
    assert answer["answer"] == "It says: mock gpt-4.1 heard: good day!"
    usage = answer["metadata"]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (7, 9, 16)
    (chat,) = upstream.chats()
    assert chat["stream_options"] == {"include_usage": True}
    assert (chat["temperature"], chat["stream"], bool(chat["user"])) == (0.2, True, True)
    assert [one["role"] for one in chat["messages"]] == ["system", "user"]


def test_a_stream_has_the_pieces_of_the_model_as_they_come(instance: Instance, upstream: Upstream) -> None:
    install(instance)
    save(instance, upstream)

    found = events(ask(instance, use(instance, llm_app()), response_mode="streaming").text)

    said = [one["answer"] for one in found if one["event"] == "message"]
    assert said == ["It says: ", "mock gpt-4", ".1 heard: good day", "", "", "!"]
    names = [one["event"] for one in found]
    # The pieces come while the node runs.
    order = [one["data"]["node_id"] for one in found if one["event"].startswith("node_")]
    assert order == ["start", "start", "llm", "llm", "answer", "answer"]
    llm_ends = next(
        n
        for n, one in enumerate(found)
        if one["event"] == "node_finished" and one["data"]["node_id"] == "llm"
    )
    assert max(n for n, one in enumerate(found) if one.get("answer") == ".1 heard: good day") < llm_ends
    assert names[-2:] == ["message_end", "workflow_finished"]
    end = next(one for one in found if one["event"] == "message_end")
    assert end["metadata"]["usage"]["total_tokens"] == found[-1]["data"]["total_tokens"] == 16


def test_the_default_model_writes_a_title_unless_it_is_not_wanted(
    instance: Instance, upstream: Upstream
) -> None:
    install(instance)
    save(instance, upstream)
    key = use(instance, llm_app())
    upstream.asked.clear()

    named = ask(instance, key).json
    plain = ask(instance, key, auto_generate_name=False).json
    again = ask(instance, key, conversation_id=named["conversation_id"])

    assert again.status_code == 200
    listed = instance.send(
        "GET", "/v1/conversations?user=u1", headers={"Authorization": f"Bearer {key}"}
    ).json
    names = {one["id"]: one["name"] for one in listed["data"]}
    assert names[named["conversation_id"]].startswith("mock gpt-4.1 heard: ")
    assert names[plain["conversation_id"]] == "New conversation"
    titles = [one for one in upstream.chats() if one.get("max_tokens") == 500]
    assert [(one["temperature"], one["stream"]) for one in titles] == [(1, False)]


def test_an_echo_app_needs_no_model_and_asks_for_none(instance: Instance, upstream: Upstream) -> None:
    key = use(instance, app_file("echo-chat").read_text(encoding="utf-8"))
    instance.stop_daemon()

    answer = ask(instance, key)

    assert (answer.status_code, answer.json["answer"]) == (200, "You said: good day")
    assert upstream.asked == []


def test_a_missing_model_fails_a_run_in_the_words_of_dify(instance: Instance, upstream: Upstream) -> None:
    key = use(instance, llm_app())
    without_plugin = ask(instance, key)
    install(instance)
    without_model = ask(instance, key)
    streamed = events(ask(instance, key, response_mode="streaming").text)
    save(instance, upstream)
    instance.workspace("PATCH", f"model-providers/{PROVIDER}/models/disable", json=MODEL)
    disabled = ask(instance, key)

    assert without_plugin.json == {
        "code": "invalid_param",
        "message": f"Provider {PROVIDER} does not exist.",
        "status": 400,
    }
    assert without_model.json["message"] == "Model gpt-4.1 not exist."
    assert [one["event"] for one in streamed] == ["error", "workflow_started", "workflow_finished"]
    assert (disabled.status_code, disabled.json["message"]) == (400, "Model gpt-4.1 is disabled.")


def test_a_failure_of_the_endpoint_fails_the_run_with_its_words(
    instance: Instance, upstream: Upstream
) -> None:
    install(instance)
    save(instance, upstream)
    key = use(instance, llm_app())
    upstream.fails_with = 503

    blocking = ask(instance, key, auto_generate_name=False)
    streaming = ask(instance, key, auto_generate_name=False, response_mode="streaming")

    assert blocking.status_code == 400
    assert blocking.json["message"].startswith("Run failed: [OpenAI-API-compatible] Error: ")
    assert "503" in blocking.json["message"]
    assert streaming.status_code == 200
    assert events(streaming.text)[-1]["event"] == "error"


def test_an_unexpected_failure_ends_a_stream(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    key = use(instance, app_file("echo-chat").read_text(encoding="utf-8"))
    monkeypatch.setattr(importlib.import_module("dify_standin.work"), "Graph", dict)

    found = events(ask(instance, key, response_mode="streaming").text)

    assert [one["event"] for one in found] == ["error"]
    assert found[0]["message"].startswith("Run failed: Internal Server Error")


def test_a_plugin_needs_some_seconds_after_a_restart_of_the_daemon(
    instance: Instance, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(instance)
    save(instance, upstream)
    key = use(instance, llm_app())
    assert ask(instance, key).status_code == 200
    monkeypatch.setenv("DIFY_STANDIN_PLUGIN_SECONDS", "60")
    instance.runtime.restart()

    chat = ask(instance, key)
    saved = save(instance, upstream)
    second = instance.workspace("POST", CREDENTIALS, json={**_body(upstream), "name": "second"})
    listed = instance.workspace("GET", "plugin/list")
    monkeypatch.setenv("DIFY_STANDIN_PLUGIN_SECONDS", "0.01")

    assert chat.json["message"].endswith(
        "PluginDaemonInternalServerError: no available node, plugin runtime not found"
    )
    assert (saved.status_code, second.status_code, listed.json["total"]) == (400, 500, 1)
    assert ask(instance, key).status_code == 200


def test_a_model_is_not_listed_while_its_plugin_starts_unless_it_was_before(
    instance: Instance, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(instance)
    save(instance, upstream)
    save(instance, upstream, EMBEDDING)
    path = f"model-providers/{PROVIDER}/models"
    wanted = {"model_settings": [{**MODEL, "provider": PROVIDER}]}
    monkeypatch.setenv("DIFY_STANDIN_PLUGIN_SECONDS", "60")
    instance.runtime.restart()

    starting = instance.workspace("GET", path).json["data"]
    refused = instance.workspace("POST", "default-model", json=wanted)
    current = instance.workspace("GET", f"{CREDENTIALS}?model=gpt-4.1&model_type=llm").json
    monkeypatch.setenv("DIFY_STANDIN_PLUGIN_SECONDS", "0.01")
    running = instance.workspace("GET", path).json["data"]
    monkeypatch.setenv("DIFY_STANDIN_PLUGIN_SECONDS", "60")
    instance.runtime.restart()
    kept = instance.workspace("GET", path).json["data"]

    assert starting == []
    assert (refused.status_code, refused.json["message"]) == (400, "Model gpt-4.1 does not exist.")
    assert current["current_credential_name"] == "dify-kit"
    assert [one["model"] for one in running] == ["gpt-4.1", "text-embedding-3-small"]
    assert kept == running


def test_the_credential_in_force_is_refused_by_one_route_and_not_by_the_other(
    instance: Instance, upstream: Upstream
) -> None:
    install(instance)
    save(instance, upstream)
    current = instance.workspace("GET", f"{CREDENTIALS}?model=gpt-4.1&model_type=llm").json
    body = {**MODEL, "credential_id": current["current_credential_id"]}

    switched = instance.workspace("POST", f"{CREDENTIALS}/switch", json=body)
    added = instance.workspace(
        "POST", f"model-providers/{PROVIDER}/models", json={**body, "config_from": "custom-model"}
    )

    assert (switched.status_code, switched.json["message"]) == (400, "Can't add same credential")
    assert added.status_code == 200


def _body(upstream: Upstream) -> dict[str, Any]:
    values = {"endpoint_url": upstream.url, "api_key": KEY, "context_size": "1", "mode": "chat"}
    return {**MODEL, "credentials": values}


def test_a_secret_is_masked_and_kept_when_it_is_hidden(instance: Instance, upstream: Upstream) -> None:
    install(instance)
    save(instance, upstream)
    path = f"{CREDENTIALS}?model=gpt-4.1&model_type=llm"
    read = instance.workspace("GET", path).json
    hidden = {
        "endpoint_url": upstream.url,
        "api_key": "[__HIDDEN__]",
        "context_size": "64000",
        "mode": "chat",
    }
    body = {**MODEL, "credential_id": read["current_credential_id"], "credentials": hidden}

    changed = instance.workspace("PUT", CREDENTIALS, json=body)
    masked = instance.workspace(
        "PUT",
        CREDENTIALS,
        json={**body, "credentials": {**hidden, "api_key": read["credentials"]["api_key"]}},
    )

    assert read["credentials"]["api_key"] == f"{KEY[:6]}{'*' * 12}{KEY[-2:]}"
    assert (changed.status_code, masked.status_code) == (200, 400)
    assert instance.workspace("GET", path).json["credentials"]["context_size"] == "64000"


@pytest.mark.parametrize("technique", ["high_quality", "economy"])
def test_knowledge_in_front_of_the_model(instance: Instance, upstream: Upstream, technique: str) -> None:
    install(instance)
    save(instance, upstream)
    save(instance, upstream, EMBEDDING)
    token = instance.send("POST", "/console/api/datasets/api-keys").json["token"]
    headers = {"Authorization": f"Bearer {token}"}
    made = instance.send(
        "POST", "/v1/datasets", json={"name": "kb", "indexing_technique": technique}, headers=headers
    ).json
    document = {"name": "doc", "text": "The moon is made of cheese."}
    batch = instance.send(
        "POST", f"/v1/datasets/{made['id']}/document/create-by-text", json=document, headers=headers
    ).json["batch"]
    status = f"/v1/datasets/{made['id']}/documents/{batch}/indexing-status"
    deadline = time.monotonic() + 10
    while instance.send("GET", status, headers=headers).json["data"][0]["indexing_status"] != "completed":
        assert time.monotonic() < deadline
        time.sleep(0.05)

    key = use(instance, knowledge_app(made["id"]))
    upstream.asked.clear()
    answer = ask(instance, key, "the moon", auto_generate_name=False).json

    (resource,) = answer["metadata"]["retriever_resources"]
    assert (resource["dataset_id"], resource["content"]) == (made["id"], document["text"])
    assert upstream.chats()[0]["messages"][0]["content"] == f"Be brief. {document['text']}"
    embedded = [path for path, _ in upstream.asked if path.endswith("/embeddings")]
    assert len(embedded) == (1 if technique == "high_quality" else 0)
    assert made["embedding_model"] == (EMBEDDING["model"] if technique == "high_quality" else None)


def knowledge_app(dataset: str) -> str:
    """Return an app that looks into a knowledge base before it asks the model."""
    document = yaml.safe_load(llm_app(context={"enabled": True, "variable_selector": ["kr", "result"]}))
    graph = document["workflow"]["graph"]
    data = {
        "type": "knowledge-retrieval",
        "title": "Knowledge",
        "dataset_ids": [dataset],
        "query_variable_selector": ["sys", "query"],
        "retrieval_mode": "multiple",
        "multiple_retrieval_config": {"top_k": 2, "reranking_enable": False, "score_threshold": None},
    }
    graph["nodes"].insert(1, {**graph["nodes"][0], "id": "kr", "data": data})
    _connect(graph)
    return str(yaml.safe_dump(document))


def test_a_chat_app_without_a_graph_answers_and_remembers(instance: Instance, upstream: Upstream) -> None:
    install(instance)
    save(instance, upstream)
    described = {
        "app": {"mode": "chat", "name": "plain", "description": ""},
        "kind": "app",
        "version": "0.5.0",
        "model_config": {
            "model": {
                "provider": PROVIDER,
                "name": "gpt-4.1",
                "mode": "chat",
                "completion_params": {"stop": []},
            },
            "pre_prompt": "You are {{role}}.",
            "user_input_form": [{"text-input": {"variable": "role", "label": "Role", "required": True}}],
        },
    }
    key = use(instance, yaml.safe_dump(described))
    upstream.asked.clear()

    parameters = instance.send("GET", "/v1/parameters", headers={"Authorization": f"Bearer {key}"}).json
    first = ask(instance, key, inputs={"role": "a cook"}, auto_generate_name=False).json
    ask(instance, key, "and now?", inputs={"role": "a cook"}, conversation_id=first["conversation_id"])
    streamed = events(ask(instance, key, inputs={"role": "x"}, response_mode="streaming").text)
    refused = ask(instance, key)

    assert parameters["user_input_form"] == described["model_config"]["user_input_form"]  # type: ignore[index]
    assert (first["mode"], first["answer"]) == ("chat", "mock gpt-4.1 heard: good day")
    said = [one["content"] for one in upstream.chats()[1]["messages"]]
    assert said == ["You are a cook.", "good day", "mock gpt-4.1 heard: good day", "and now?"]
    assert {one["event"] for one in streamed} == {"message", "message_end"}
    assert (refused.status_code, refused.json["message"]) == (400, "role is required in input form")
