"""Plugins and models through containers: the plugin daemon calls the endpoint, api and the worker answer with its text.

Single answers are compared in tests/unit/test_standin_recordings.py; here is what needs processes and databases.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.stacks import wait_until
from tests.contract.instance import Instance, of_small_dify
from tests.contract.model_recordings import NEW, OLD, PROVIDER
from tests.integration.small_dify import SmallDify
from tests.unit.standin_upstream import KEY, Upstream, compatible, listening
from tests.unit.test_standin_models import llm_app

CREDENTIALS = f"/workspaces/current/model-providers/{PROVIDER}/models/credentials"
PLUGIN = "/workspaces/current/plugin"
MODEL = {"model": "gpt-4.1", "model_type": "llm"}
STARTING_SECONDS = 8


class Chain:
    """An instance with a plugin daemon, and the endpoint that it calls."""

    def __init__(self, dify: SmallDify, upstream: Upstream) -> None:
        self.dify = dify
        self.upstream = upstream
        self.instance: Instance = of_small_dify(dify)

    def container(self, name: str) -> Any:
        """Return a container of the instance."""
        return self.dify.client.containers.get(f"{self.dify.prefix}-{name}")

    def install(self) -> None:
        """Upload the package and install it."""
        files = {"pkg": ("package.difypkg", compatible("0.0.63"))}
        identifier = self.instance.console.post(f"{PLUGIN}/upload/pkg", files=files).json()[
            "unique_identifier"
        ]
        body = {"plugin_unique_identifiers": [identifier]}
        task = self.instance.console.post(f"{PLUGIN}/install/pkg", json=body).json()["task_id"]
        wait_until(
            lambda: self.instance.console.get(f"{PLUGIN}/tasks/{task}").json()["task"]["status"] == "success",
            seconds=30,
            what="the plugin is installed",
        )

    def save(self, name: str = "dify-kit") -> httpx.Response:
        """Save a credential of the model."""
        values = {"endpoint_url": self.upstream.url, "api_key": KEY, "mode": "chat", "context_size": "128000"}
        return self.instance.console.post(CREDENTIALS, json={**MODEL, "name": name, "credentials": values})


@pytest.fixture(scope="module", params=[NEW, OLD])
def chain(request: pytest.FixtureRequest) -> Iterator[Chain]:
    """A small Dify of each release, with the plugin installed and a model saved."""
    dify = SmallDify(release=request.param)
    try:
        dify.start()
        dify.start_worker()
        dify.start_plugin_daemon(
            {"FORCE_VERIFYING_SIGNATURE": "false", "DIFY_STANDIN_PLUGIN_SECONDS": str(STARTING_SECONDS)}
        )
        with listening(dify.gateway()) as upstream:
            one = Chain(dify, upstream)
            wait_until(
                lambda: one.instance.console.get(f"{PLUGIN}/list").is_success,
                seconds=60,
                what="the plugin daemon answers",
            )
            one.install()
            saved = one.save()
            assert saved.status_code == httpx.codes.CREATED, saved.text
            yield one
    finally:
        dify.remove()


@pytest.fixture(scope="module")
def key(chain: Chain) -> str:
    """A key for an app with an LLM node."""
    return chain.instance.key(chain.instance.import_app(llm_app()))


def test_saving_a_credential_calls_the_endpoint(chain: Chain) -> None:
    before = len(chain.upstream.chats())

    refused = chain.instance.console.post(
        CREDENTIALS,
        json={
            **MODEL,
            "name": "wrong",
            "credentials": {"endpoint_url": chain.upstream.url, "api_key": "dkp_wrong", "context_size": "1"},
        },
    )

    assert refused.status_code == httpx.codes.BAD_REQUEST
    assert refused.json()["message"].startswith("Credentials validation failed with status code 401")
    (ping,) = chain.upstream.chats()[before:]
    assert (ping["max_tokens"], ping["messages"]) == (5, [{"role": "user", "content": "ping"}])


def test_api_and_worker_answer_with_the_text_of_the_endpoint(chain: Chain, key: str) -> None:
    blocking = chain.instance.ask(key, "good day", auto_generate_name=False)
    streaming = chain.instance.ask(key, "good day", auto_generate_name=False, response_mode="streaming")

    assert blocking.json()["answer"] == "It says: mock gpt-4.1 heard: good day!"
    assert blocking.json()["metadata"]["usage"]["total_tokens"] == 16
    blocks = [one.removeprefix("data: ") for one in streaming.text.split("\n\n") if one.startswith("data: ")]
    said = [json.loads(one)["answer"] for one in blocks if '"event":"message"' in one]
    assert "".join(said) == blocking.json()["answer"]
    assert len(said) > 2


def test_a_stopped_plugin_daemon_fails_calls_and_leaves_the_rest(chain: Chain, key: str) -> None:
    # What the plugin says of a model stays in Dify's cache: a model that was not used is not listed then.
    assert chain.instance.ask(key, "hi").is_success
    chain.container("plugin-daemon").kill()
    try:
        chat = chain.instance.ask(key, "hi")
        saved = chain.save("second")
        providers = chain.instance.console.get("/workspaces/current/model-providers")
        default = chain.instance.console.get("/workspaces/current/default-model?model_type=llm")
    finally:
        chain.container("plugin-daemon").start()
    began = time.monotonic()
    wait_until(
        lambda: chain.instance.console.get(f"{PLUGIN}/list").is_success, seconds=60, what="the daemon answers"
    )
    starting = chain.instance.ask(key, "hi")
    was_early = time.monotonic() - began < STARTING_SECONDS

    assert chat.json()["message"] == "Run failed: Request to Plugin Daemon Service failed-500"
    assert (saved.status_code, providers.status_code) == (500, 200)
    assert default.json()["data"]["model"] == "gpt-4.1"
    # A machine that is busy for so long shows nothing of it.
    assert not was_early or "no available node, plugin runtime not found" in starting.text
    wait_until(lambda: chain.instance.ask(key, "hi").is_success, seconds=60, what="the plugin runs again")


def test_everything_survives_other_containers(chain: Chain, key: str) -> None:
    chain.container("api").restart(timeout=20)
    wait_until(chain.dify.answers, seconds=120, what="api answers")
    one = Instance(
        url=chain.dify.address(),
        email=chain.instance.email,
        password=chain.instance.password,
        release=chain.instance.release,
    )

    read = one.console.get(CREDENTIALS, params=MODEL).json()

    assert read["current_credential_name"] == "dify-kit"
    assert read["credentials"]["api_key"] == f"{KEY[:6]}{'*' * 12}{KEY[-2:]}"
    assert one.ask(key, "good day").json()["answer"].endswith("good day!")
    logs = "".join(chain.container(name).logs().decode() for name in ("api", "worker", "plugin-daemon"))
    assert KEY not in logs
