"""Each recorded request about plugins and models again, in order, to the stand-in: status, fields and messages."""

import io
import json
import re
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.model_recordings import (
    NEW,
    OLD,
    PROVIDER,
    Cut,
    Names,
    Step,
    differences,
    events,
    steps,
)
from tests.unit import standin_upstream
from tests.unit.standin_app import Instance
from tests.unit.standin_upstream import KEY, Upstream, listening

INSTALL_SECONDS = 30
UNINSTALLED_UNKNOWN = "00000000-0000-4000-8000-000000000000"
OPENAI = "langgenius/openai"

# Recorded answers that are not repeated, with the reason.
_NO_UV = "the stand-in installs no Python packages, so an index without a trusted certificate fails nothing"
LEFT_OUT = {
    **dict.fromkeys(range(23, 28), _NO_UV),
    198: "the first call of a plugin that never starts waits six seconds and says so in other words than the next",
    301: "a message that a task shows between its start and its end when the machine is busy",
}


class Replay:
    """A release's recording, played to an instance."""

    def __init__(self, instance: Instance, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
        self._instance = instance
        self._upstream = upstream
        self._patch = monkeypatch
        self._later = timedelta()
        self._app_key = ""
        self._last_key = ""
        self._dataset_key = ""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._closed = free.getsockname()[1]
        base = upstream.url.removesuffix("/v1")
        self._names = Names(
            {
                "http://nginx:8082/llm/v1": upstream.url,
                "http://nginx:8082/llm": base,
                "http://nginx:8999": f"http://127.0.0.1:{self._closed}",
                "<key>": KEY,
                "<masked key>": f"{KEY[:6]}{'*' * 12}{KEY[-2:]}",
            }
        )
        records = instance.modules["plugin_records"]
        monkeypatch.setattr(records, "now", lambda: datetime.now(UTC) + self._later)
        monkeypatch.setattr(instance.modules["plugin_runtime"], "LEAVING_SECONDS", 600.0)

    def play(self, step: Step) -> list[str]:
        """Send a request again; return how its answer differs."""
        self._before(step)
        if step.number in LEFT_OUT:
            return []
        answer = self._send(step)
        if self._runs_longer(step, answer):
            self._later += timedelta(seconds=INSTALL_SECONDS + 1)
            answer = self._send(step)
        return self._compared(step, answer)

    def _compared(self, step: Step, answer: Any) -> list[str]:
        if answer.status_code != step.status:
            return [f"status {step.status} became {answer.status_code}: {answer.text[:300]}"]
        if step.kind.startswith("text/event-stream"):
            recorded, received = events(step.answer), events(answer.text)
            if step.answer.endswith("cut"):
                received = received[: len(recorded)]
            return differences(recorded, received)
        if not step.kind.startswith("application/json") or step.status == 204:
            return [] if answer.text.strip() == (step.answer or "").strip() else [answer.text]
        received = self._as_recorded(answer.json)
        self._names.learn(step.answer, answer.json)
        self._after(step, answer.json)
        return differences(*self._chosen(step, received))

    def _as_recorded(self, received: Any) -> Any:
        text = json.dumps(received)
        text = text.replace(f"host='127.0.0.1', port={self._closed}", "host='nginx', port=8999")
        return json.loads(text.replace(self._upstream.url.removesuffix("/v1"), "http://nginx:8082/llm"))

    @staticmethod
    def _chosen(step: Step, received: Any) -> tuple[Any, Any]:
        """Return what is compared of an answer: all of it, but for a list of 52 models and a whole DSL."""
        recorded = step.answer.value if isinstance(step.answer, Cut) else step.answer
        if step.note == "provider level: models":
            return Cut([recorded["data"][0]]), [one for one in received["data"] if one["model"] == "gpt-5.6"]
        if step.note == "export":
            parts = [yaml.safe_load(one["data"]) for one in (recorded, received)]
            return parts[0]["dependencies"], parts[1]["dependencies"]
        return step.answer, received

    def _before(self, step: Step) -> None:
        """Bring about what happened between two recorded requests."""
        if step.number in {210, 251}:
            self._patch.setenv("FORCE_VERIFYING_SIGNATURE", "false")
        if step.number == 28:
            # The recorded installations failed.
            for task in self._instance.workspace("GET", "plugin/tasks").json["tasks"]:
                self._instance.workspace("POST", f"plugin/tasks/{task['id']}/delete")
        if step.note in {"chat after the daemon restarted", "chat after the daemon was replaced"}:
            self._instance.runtime.restart()
            time.sleep(0.02)
        if step.note == "daemon down: plugin list":
            self._instance.stop_daemon()
        if step.number == 279:
            self._instance.start_daemon()
        if step.note == "task of long ago":
            self._later += timedelta(seconds=61)
        if step.note == "dataset: retrieve":
            self._wait_for_index()
        self._find_ids(step)

    def _wait_for_index(self) -> None:
        store = self._instance.modules["store"]
        deadline = time.monotonic() + 20
        while store.row("select 1 from documents where indexing_status = 'completed'") is None:
            assert time.monotonic() < deadline, store.rows("select * from documents")
            time.sleep(0.05)

    def _find_ids(self, step: Step) -> None:
        """Look up an id that a request names and no recorded answer did."""
        body = step.body if isinstance(step.body, dict) else {}
        installation = body.get("plugin_installation_id")
        if installation and installation not in self._names.known and installation != UNINSTALLED_UNKNOWN:
            wanted = OPENAI if step.number > 290 else PROVIDER.rpartition("/")[0]
            listed = self._instance.workspace("GET", "plugin/list").json["plugins"]
            self._names.known[installation] = next(one["id"] for one in listed if one["plugin_id"] == wanted)
        for credential in re.findall(
            r"credential_id\W{1,4}([0-9a-f-]{36})", step.path + json.dumps(step.body)
        ):
            if credential not in self._names.known and credential != UNINSTALLED_UNKNOWN:
                self._find_credential(step, credential)

    def _find_credential(self, step: Step, credential: str) -> None:
        if "/models" not in step.path:
            listed = self._instance.workspace("GET", "model-providers").json["data"]
            found = next(one for one in listed if one["provider"] in step.path)["custom_configuration"]
            kept = found["available_credentials"]
        else:
            model = "extra" if "extra" in step.path + json.dumps(step.body) else "gpt-4.1"
            path = f"model-providers/{PROVIDER}/models/credentials?model={model}&model_type=llm"
            kept = self._instance.workspace("GET", path).json["available_credentials"]
        taken = set(self._names.known.values())
        free = [one["credential_id"] for one in kept if one["credential_id"] not in taken]
        if free:
            self._names.known[credential] = free[0]

    def _send(self, step: Step) -> Any:
        headers: dict[str, str] = {}
        if step.path.startswith("/v1/"):
            plain = isinstance(step.body, dict) and step.body.get("query") == "hi"
            key = (
                self._dataset_key
                if step.path.startswith("/v1/datasets")
                else self._app_key
                if plain
                else self._last_key
            )
            headers["Authorization"] = f"Bearer {key}"
        path, arguments = self._names.sent(step.path), self._body(step)
        if step.note == "no session":
            client = self._instance.modules["api"].create_app().test_client()
            return client.open(path, method=step.method)
        if step.note == "session without CSRF header":
            return self._instance.client.open(path, method=step.method)
        return self._instance.send(step.method, path, headers=headers, **arguments)

    def _body(self, step: Step) -> dict[str, Any]:
        if isinstance(step.body, str) and step.body.startswith("<multipart"):
            field = step.body.removeprefix("<multipart ").removesuffix(">")
            return {"data": {field: (io.BytesIO(self._package(step)), "package.difypkg")}}
        return {} if step.body is None else {"json": self._names.sent(step.body)}

    @staticmethod
    def _package(step: Step) -> bytes:
        """Return a package that replaces the recorded one: of that name and version, another for another hash."""
        if step.note == "upload no zip":
            return b"no zip"
        answer = step.answer.value if isinstance(step.answer, Cut) else step.answer
        identifier = str(answer.get("unique_identifier", "langgenius/openai_api_compatible:0.0.63@none"))
        name, _, rest = identifier.partition(":")
        version, _, salt = rest.partition("@")
        if name == OPENAI:
            return standin_upstream.openai(version, salt=salt)
        signed = 18 <= step.number < 210
        return standin_upstream.compatible(version, signed=signed, salt=salt)

    @staticmethod
    def _runs_longer(step: Step, answer: Any) -> bool:
        """Tell whether a task that had ended when it was recorded still runs."""
        if "/plugin/tasks/" not in step.path or step.status != 200 or not isinstance(step.answer, dict):
            return False
        ended = step.answer.get("task", {}).get("status") == "success"
        return ended and bool(answer.json["task"]["status"] == "running")

    def _after(self, step: Step, received: Any) -> None:
        if step.path.endswith("/upload/pkg") and step.status == 200:
            answer = step.answer.value if isinstance(step.answer, Cut) else step.answer
            self._names.known[answer["unique_identifier"]] = received["unique_identifier"]
        if step.path.endswith("/datasets/api-keys"):
            self._dataset_key = received["token"]
        elif step.path.endswith("/api-keys"):
            self._last_key = received["token"]
            self._app_key = self._app_key or self._last_key


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """The endpoint that models are at."""
    with listening() as found:
        yield found


@pytest.mark.parametrize("release", [NEW, OLD])
def test_every_recorded_answer_is_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, upstream: Upstream, release: str
) -> None:
    variables = {
        "DIFY_STANDIN_MARKETPLACE": "false",
        "DIFY_STANDIN_INSTALL_SECONDS": str(INSTALL_SECONDS),
        "DIFY_STANDIN_PLUGIN_SECONDS": "0.01",
    }
    instance = Instance(monkeypatch, tmp_path, release, **variables)
    recorded = steps(release)
    try:
        replay = Replay(instance, upstream, monkeypatch)
        found = {f"{step.number} {step.note}": replay.play(step) for step in recorded}
    finally:
        instance.stop_daemon()

    wrong = {step: what for step, what in found.items() if what}
    assert wrong == {}, "\n".join(f"{step}:\n  " + "\n  ".join(what[:6]) for step, what in wrong.items())
    assert len(recorded) == {NEW: 280, OLD: 28}[release]
