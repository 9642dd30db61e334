"""A stack whose Dify gets its models from the kit: from a fresh deployment to an answer, and its life."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import docker
import httpx
import pytest

from infra.engine.runtime import runtime
from infra.resources.console_client import Console
from infra.resources.console_session import Sessions
from infra.resources.console_transport import ContainerTransport
from infra.resources.workspace import call
from support.llm_upstream import WORDS
from support.provider import Provider
from support.stacks import Stack
from tests.integration.containers import readable
from tests.unit.standin_upstream import openai

PROVIDER = "langgenius/openai_api_compatible/openai_api_compatible"
MODEL = f"model-{PROVIDER}-llm-gpt-4.1"
TEXT = "".join(WORDS)
ADMIN = "admin@example.com"
# Counting comes after the answer.
COUNT_SECONDS = 10


class Answering:
    """A stack with the LLM proxy and an app with an LLM node, and the upstream behind it."""

    def __init__(self, stack: Stack, provider: Provider) -> None:
        self.provider = provider
        self.stack = stack
        llm = {
            "enabled": True,
            "upstreams": {"provider": provider.settings},
            "models": {"gpt-4.1": ["provider"]},
            "embeddings": {"text-embedding-3-small": ["provider"]},
        }
        self.package = stack.home / "openai.difypkg"
        self.package.write_bytes(openai("1.0.4"))
        given = {
            "llm": llm,
            "apps": ["echo-chat", "llm-chat", "knowledge-chat"],
            "modelProviders": {"plugins": [{"file": str(self.package)}]},
            # The package has no signature.
            "plugins": {"verifySignature": False},
        }
        done = self.stack.init(set=[f"{key}={json.dumps(value)}" for key, value in given.items()])
        assert done.code == 0, done.output
        self.set_key(provider.keys[0])
        # The upstream is in the stack's network before Dify asks for it.
        joining = threading.Thread(target=self._join, daemon=True)
        joining.start()
        self.first = self.stack.up()
        joining.join()
        self.exports = self.stack.outputs(secrets_too=True)

    def _join(self) -> None:
        for _ in range(600):
            try:
                return self.provider.join(self.stack)
            except docker.errors.NotFound:
                time.sleep(1)
        raise AssertionError("the stack has no network")

    def set_key(self, key: str) -> None:
        done = self.stack.kit("keys", "set", "provider", "--stdin", "--stack", self.stack.name, stdin=key)
        assert done.code == 0, done.output

    def chat(self, app: str = "llm-chat", mode: str = "blocking") -> httpx.Response:
        return httpx.post(
            f"{self.stack.url}/v1/chat-messages",
            headers={"Authorization": f"Bearer {self.exports['appKeys'][app]}"},
            json={"inputs": {}, "query": "Good day", "response_mode": mode, "user": "me"},
            timeout=60,
        )

    def console(self) -> Console:
        """The admin's console, as the resources reach it."""
        return Console(
            transport=ContainerTransport(f"dify-{self.stack.name}-api"),
            url=self.stack.url,
            email=ADMIN,
            password=self.stack.kit("password", "--stack", self.stack.name).stdout.strip(),
            sessions=Sessions(),
        )

    def used(self) -> dict[str, Any]:
        """Return what the caller dify used, by model."""
        done = self.stack.kit("usage", "--json", "--stack", self.stack.name)
        assert done.code == 0, done.output
        months: dict[str, Any] = json.loads(done.stdout)
        found: dict[str, Any] = months[max(months)]["key:dify"]
        return found


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answering]:
    """One stack for all tests of this file."""
    with ExitStack() as opened:
        # Removed also when the deployment fails, and after the provider, which is in the stack's network.
        stack = Stack(home=tmp_path_factory.mktemp("home"))
        opened.callback(stack.remove)
        provider = Provider(readable(tmp_path_factory.mktemp("provider")))
        opened.callback(provider.remove)
        yield Answering(stack, provider)


def test_fresh_stack_answers_with_the_upstreams_text(answering: Answering) -> None:
    answer = answering.chat()

    assert answer.status_code == 200, answer.text
    assert answer.json()["answer"] == TEXT
    assert answer.json()["metadata"]["usage"]["total_tokens"] > 0


def test_same_answer_comes_as_a_stream(answering: Answering) -> None:
    answer = answering.chat(mode="streaming")

    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert "".join(one["answer"] for one in events if one["event"] == "message") == TEXT
    assert {"message_end", "workflow_finished"} <= {one["event"] for one in events}
    assert "error" not in {one["event"] for one in events}


def test_app_with_knowledge_answers_too(answering: Answering) -> None:
    answer = answering.chat("knowledge-chat")

    assert (answer.status_code, answer.json().get("answer")) == (200, TEXT), answer.text


def test_usage_counts_it_under_dify(answering: Answering) -> None:
    before = answering.used()["gpt-4.1"]["requests"]
    assert answering.chat().status_code == 200

    deadline = time.monotonic() + COUNT_SECONDS
    while answering.used()["gpt-4.1"]["requests"] == before and time.monotonic() < deadline:
        time.sleep(0.5)
    used = answering.used()
    assert used["gpt-4.1"]["requests"] > before
    # Dify tried it when its credential was stored.
    assert used["text-embedding-3-small"]["requests"] >= 1


def test_exports_name_the_models_and_no_key(answering: Answering) -> None:
    found = answering.exports["modelProviders"]

    assert [(one["model"], one["type"]) for one in found["models"]] == [
        ("gpt-4.1", "llm"),
        ("text-embedding-3-small", "text-embedding"),
    ]
    assert found["defaults"] == {"llm": "gpt-4.1", "text-embedding": "text-embedding-3-small"}
    # The package of this machine reached the plugin daemon.
    digest = hashlib.sha256(answering.package.read_bytes()).hexdigest()
    assert found["plugins"]["langgenius/openai"] == f"langgenius/openai:1.0.4@{digest}"
    # Neither the exports nor the output nor the state has the key in plain text.
    key = answering.stack.pulumi("config", "get", "dify:llmDifyKey").stdout.strip()
    assert key.startswith("dkp_")
    states = list((answering.stack.home / "state").rglob(f"{answering.stack.name}.json"))
    assert states
    for text in (json.dumps(answering.exports), answering.first.output, *(one.read_text() for one in states)):
        assert key not in text


def test_second_deployment_changes_nothing(answering: Answering) -> None:
    assert "nothing to change" in answering.stack.up().output


def test_credential_deleted_in_the_console_comes_back(answering: Answering) -> None:
    console = answering.console()
    path = f"/model-providers/{PROVIDER}/models"
    asked = "model=gpt-4.1&model_type=llm"
    found = call(console, "GET", f"{path}/credentials?{asked}")
    what = {"model": "gpt-4.1", "model_type": "llm", "credential_id": found["current_credential_id"]}
    call(console, "DELETE", f"{path}/credentials?{asked}&credential_id={what['credential_id']}", what)
    assert answering.chat().status_code == 400

    assert answering.stack.steps("--refresh") == {MODEL: "create"}
    answering.stack.up()

    assert answering.chat().json()["answer"] == TEXT


def test_rotated_key_is_used_and_the_old_one_is_refused_after_the_next_deployment(
    answering: Answering,
) -> None:
    stack = answering.stack
    old = stack.pulumi("config", "get", "dify:llmDifyKey").stdout.strip()
    inside = f"dify-{stack.name}-api"

    def status(key: str) -> int:
        script = (
            "import sys, urllib.request, urllib.error\n"
            "request = urllib.request.Request('http://nginx:8082/llm/v1/models',"
            " headers={'Authorization': 'Bearer ' + sys.stdin.readline().strip()})\n"
            "try: print(urllib.request.urlopen(request).status)\n"
            "except urllib.error.HTTPError as problem: print(problem.code)\n"
        )
        return int(run_in(inside, script, key))

    done = stack.kit("keys", "rotate", "dify", "--stack", stack.name)
    assert done.code == 0, done.output
    new = stack.pulumi("config", "get", "dify:llmDifyKey").stdout.strip()
    assert answering.chat().json()["answer"] == TEXT
    assert (status(old), status(new)) == (200, 200)
    # Never from outside, not even with the right key.
    outside = httpx.get(f"{stack.url}/llm/v1/models", headers={"Authorization": f"Bearer {new}"})
    assert outside.status_code == 403

    stack.up()
    assert (status(old), status(new)) == (401, 200)
    assert answering.chat().json()["answer"] == TEXT


def test_wrong_key_of_the_upstream_stops_a_new_model_in_its_words_and_leaves_the_others(
    answering: Answering,
) -> None:
    stack = answering.stack
    answering.set_key("sk-wrong-0123456789-0123456789")
    stack.set_config("llm.models.gpt-new[0]", "provider")
    try:
        failed = stack.try_up()
        assert failed.code != 0
        assert f"model gpt-new of {PROVIDER}: " in failed.output
        assert "Credentials validation failed with status code" in failed.output
    finally:
        answering.set_key(answering.provider.keys[0])
        stack.unset_config("llm.models.gpt-new")
    stack.up()

    assert answering.chat().json()["answer"] == TEXT


def run_in(container: str, script: str, line: str) -> str:
    """Return what a Python script prints in a container that gets `line` on standard input."""
    with runtime(container, 60) as found:
        said = found.ask(["python3", "-c", script], seconds=30, line=f"{line}\n".encode())
    return said.stdout.decode()
