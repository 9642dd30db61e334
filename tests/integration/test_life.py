"""The life of a stack: begun with Pulumi alone, completed, deployed with two tenants, taken down, forgotten."""

import base64
import json
import re
import shutil
import signal
import stat
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from support.stacks import CHECKOUT, KIT, SMALLEST, Stack, wait_until
from tests import oauth_guide


class Own(Stack):
    """A stack whose settings are a file of the operator's own, and whose Pulumi has a home of its own."""

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every command; Pulumi stores there which stack is selected."""
        return super().environment | {"PULUMI_HOME": str(self.home.parent / "pulumi")}

    @property
    def file(self) -> Path:
        """The settings, in the checkout."""
        return CHECKOUT / f"Pulumi.{self.name}.yaml"

    def selected(self) -> str:
        """Return the stack that Pulumi has selected, regardless of PULUMI_STACK."""
        script = 'eval "$KIT_ENV" && unset PULUMI_STACK && exec pulumi stack --show-name'
        return self._run(["bash", "-c", script], timeout=60, KIT_ENV=self._shell()).stdout.strip()


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    """Make a stack that Pulumi has selected."""
    stack = Own(home=tmp_path_factory.mktemp("life") / "home", release=SMALLEST)
    try:
        created = stack.pulumi("stack", "init")
        assert created.code == 0, created.output
        yield stack
    finally:
        stack.remove()


@pytest.fixture(scope="module")
def stack(other: Own) -> Iterator[Own]:
    """Begin a stack by hand, next to the one that is selected."""
    one = Own(home=other.home, release=SMALLEST)
    try:
        assert one.pulumi("stack", "init", "--no-select").code == 0
        one.set_config("httpPort", str(one.port))
        one.set_config("release", SMALLEST)
        yield one
    finally:
        one.remove()


def test_a_stack_begun_with_pulumi_is_completed_and_nothing_of_it_changes(stack: Own, other: Own) -> None:
    stack.file.write_text("# The settings of the operator.\n" + stack.file.read_text())
    before = stack.file.read_text()

    done = stack.kit("init", stack.name, "--images", "local")

    assert done.code == 0, done.output
    after = stack.file.read_text()
    assert [line for line in before.splitlines() if line not in after.splitlines()] == []
    assert "generated secret(s): adminPassword" in done.stderr
    assert not (stack.home / "stacks" / stack.file.name).exists()
    assert stack.kit("init", stack.name).code == 1
    assert stack.file.read_text() == after
    assert stack.selected() == other.name


def test_two_tenants_of_the_guide_call_the_app_of_their_own(stack: Own) -> None:
    home = stack.home.parent
    oauth_guide.make_apps(home)
    stack.set_config("appsDir", str(home / "dify-apps"))
    stack.set_config("oauth.enabled", "true")
    for tenant, parts in oauth_guide.settings()["oauth"]["tenants"].items():
        for part, value in parts.items():
            stack.set_config(f"oauth.tenants.{tenant}.{part}", str(value))
    secrets = {
        command[3]: stack.kit(*command[1:-2], "--stack", stack.name).stdout.strip()
        for command in oauth_guide.commands()[:-1]
    }

    stack.up()

    http = httpx.Client(base_url=stack.url, timeout=60)
    tokens = {
        client: http.post(
            "/oauth/token",
            data={"grant_type": "client_credentials", "client_id": client, "client_secret": secret},
        ).json()["access_token"]
        for client, secret in secrets.items()
    }
    acme, globex = ({"Authorization": f"Bearer {tokens[f'{name}-bot']}"} for name in ("acme", "globex"))
    chat = {"inputs": {}, "query": "hello", "user": "u-1", "response_mode": "blocking"}
    said = [http.post("/v1/chat-messages", headers=one, json=chat) for one in (acme, globex)]
    assert [one.status_code for one in said] == [200, 200]
    conversation = {"user": "u-1", "conversation_id": said[1].json()["conversation_id"]}
    assert http.get("/v1/messages", headers=globex, params=conversation).status_code == 200
    assert http.get("/v1/messages", headers=acme, params=conversation).status_code == 404
    # The limit of globex, five in a minute, is not acme's.
    spent = [http.get("/v1/info", headers=globex).status_code for _ in range(6)]
    assert spent[-1] == 429
    assert [http.get("/v1/info", headers=acme).status_code for _ in range(6)] == [200] * 6


def test_status_names_the_service_that_was_stopped_and_is_well_again_after_its_start(stack: Own) -> None:
    well = stack.kit("status", "--stack", stack.name)
    assert well.code == 0, well.output
    for part in (f"127.0.0.1:{stack.port} answers", "succeeded, ", "no problem found", "gateway ", SMALLEST):
        assert part in well.stdout, well.stdout
    document = json.loads(stack.kit("status", "--stack", stack.name, "--json").stdout)
    assert document["problems"] == []
    assert {name: one["same"] for name, one in document["revisions"].items()} == {
        "nginx": True,
        "gateway": True,
    }
    api = next(one for one in document["services"] if one["service"] == "api")
    assert 0 < api["memory"] < api["memoryLimit"]
    assert "dify" in api["image"]
    assert document["traffic"]["total"]["requests"] > 0
    shown = stack.kit("metrics", "--stack", stack.name).stdout
    assert re.search(
        rf'^dify_kit_edge_requests_total{{.*replica="[^"]*nginx",.*stack="{stack.name}"', shown, re.MULTILINE
    )

    stack.container("worker").stop(timeout=20)
    try:
        ill = stack.kit("status", "--stack", stack.name)
        again = stack.kit("status", "--stack", stack.name, "--json")
    finally:
        stack.container("worker").start()
    wait_until(lambda: stack.well("worker"), seconds=120, what="the worker works again")

    assert (ill.code, again.code) == (1, 1)
    assert "worker is exited" in ill.stdout
    assert "it was stopped by hand" in ill.stdout
    assert [one["what"].split()[0] for one in json.loads(again.stdout)["problems"]] == ["worker"]
    recovered = stack.kit("status", "--stack", stack.name)
    assert recovered.code == 0, recovered.output


def test_logs_are_shown_by_time_and_followed_until_ctrl_c(stack: Own) -> None:
    api = stack.kit("logs", "api", "--stack", stack.name)
    every = [
        json.loads(line) for line in stack.kit("logs", "--json", "--stack", stack.name).stdout.splitlines()
    ]

    assert api.code == 0, api.output
    assert api.stdout.startswith("api | ")
    assert "warning" not in api.stderr
    assert {"api", "worker", "db-postgres", "migration", "nginx", "gateway"} <= {
        one["service"] for one in every
    }
    assert [one["time"] for one in every] == sorted(one["time"] for one in every)
    assert stack.kit("logs", "db_postgres", "--tail", "3", "--stack", stack.name).stdout.startswith(
        "db-postgres |"
    )

    command = [str(KIT), "logs", "nginx", "--follow", "--tail", "0", "--stack", stack.name]
    with subprocess.Popen(
        command,
        cwd=CHECKOUT,
        env=stack.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell ignores it for what it starts in the background, and a test run would pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as following:
        assert following.stdout
        asked = threading.Thread(target=_ask_until_the_end, args=(stack.url, following), daemon=True)
        asked.start()
        line = following.stdout.readline()
        following.send_signal(signal.SIGINT)
        _, errors = following.communicate(timeout=60)

    assert "/v1/followed" in line
    assert following.returncode == 130
    assert "Traceback" not in errors


def _ask_until_the_end(url: str, following: "subprocess.Popen[str]") -> None:
    """Send a request a second: the log is not followed yet when the first one comes."""
    while following.poll() is None:
        httpx.get(f"{url}/v1/followed", timeout=10)
        time.sleep(1)


def test_a_support_bundle_holds_no_secret_of_the_stack(stack: Own, tmp_path: Path) -> None:
    target = tmp_path / "bundle.tar.gz"

    done = stack.kit("support-bundle", "--stack", stack.name, "--to", str(target))

    assert done.code == 0, done.output
    with tarfile.open(target) as tar:
        found = {one.name.partition("/")[2]: tar.extractfile(one).read().decode() for one in tar}  # type: ignore[union-attr]
    for path in ("status.txt", "doctor.json", "logs/api.log", "containers/api.json", "pulumi/history.json"):
        assert found.get(path), done.stdout
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    shown = json.loads(stack.pulumi("config", "--json", "--show-secrets").stdout)
    outputs, plain = stack.outputs(secrets_too=True), stack.outputs()
    secrets = [one["value"] for one in shown.values() if one.get("secret")]
    secrets += list(_texts({name: value for name, value in outputs.items() if plain[name] != value}))
    secrets.append((stack.home / "passphrase").read_text().strip())
    assert len(secrets) > 15
    for text in secrets:
        for spelling in (text, quote(text, safe=""), base64.b64encode(text.encode()).decode().rstrip("=")):
            assert [path for path, content in found.items() if spelling in content] == []


def _texts(value: object) -> Iterator[str]:
    """Yield the texts of a secret export, its public name left out."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from () if key == "clientId" else _texts(one)
    elif isinstance(value, str) and value:
        yield value


def test_a_state_that_is_cut_off_lost_or_old_is_rebuilt_and_keys_and_data_stay(stack: Own) -> None:
    checkpoint = stack.home / "state" / ".pulumi" / "stacks" / "dify" / f"{stack.name}.json"
    key = stack.outputs(secrets_too=True)["appKeys"]["echo-chat"]

    def ask(query: str, conversation: str = "") -> str:
        answer = httpx.post(
            f"{stack.url}/v1/chat-messages",
            headers={"Authorization": f"Bearer {key}"},
            json={"inputs": {}, "query": query, "user": "u-2", "conversation_id": conversation},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["conversation_id"])

    conversation = ask("before")
    whole = checkpoint.read_bytes()
    containers = stack.containers()

    checkpoint.write_bytes(whole[: len(whole) // 2])
    refused = stack.try_up()
    rebuilt = stack.kit("state", "rebuild", "--yes", "--stack", stack.name)

    assert refused.code == 1
    assert f"dify-kit state rebuild --stack {stack.name}" in refused.stderr
    assert rebuilt.code == 0, rebuilt.output
    # The last copy is of the last update: nothing that ran is made again.
    assert stack.containers() == containers
    ask("after the damage", conversation)

    for lost in ("stacks", "backups", "history"):
        shutil.rmtree(stack.home / "state" / ".pulumi" / lost / "dify" / stack.name, ignore_errors=True)
    for left in checkpoint.parent.glob(f"{stack.name}.json*"):
        left.unlink()
    rebuilt = stack.kit("state", "rebuild", "--yes", "--stack", stack.name)

    assert rebuilt.code == 0, rebuilt.output
    assert stack.outputs(secrets_too=True)["appKeys"]["echo-chat"] == key
    ask("after the loss", conversation)
    before = stack.containers()
    stack.up()
    assert stack.containers() == before


def test_a_protected_stack_outlives_every_slip(stack: Own) -> None:
    refused = stack.kit("forget", stack.name, "--yes", stack.name)
    assert refused.code == 1
    assert f"dify-kit down --stack {stack.name}" in refused.stderr
    assert stack.kit("set", "protect", "true", "--stack", stack.name).code == 0
    assert stack.up().code == 0

    by_pulumi = stack.pulumi("destroy", "--yes")
    assert by_pulumi.code != 0
    assert "protected" in by_pulumi.output
    for arguments in (("down",), ("down", "--yes-delete-data-of", stack.name)):
        refused = stack.kit(*arguments, "--stack", stack.name)
        assert refused.code != 0, refused.output
        assert "is protected" in refused.stderr
    assert httpx.get(f"{stack.url}/console/api/setup", timeout=60).status_code == 200
    assert stack.kit("status", "--stack", stack.name).code == 0

    down = stack.kit("down", "--stack", stack.name, "--yes-take-down", stack.name)
    assert down.code == 0, down.output
    kept = stack.volumes()
    assert {f"dify-{stack.name}-{name}" for name in ("postgres", "app_storage", "redis")} <= set(kept)
    forgotten = stack.kit("forget", stack.name, "--yes", stack.name, "--delete-data")
    assert forgotten.code == 1
    assert "set protect false" in forgotten.stderr
    assert stack.volumes() == kept

    assert stack.kit("set", "protect", "false", "--stack", stack.name).code == 0


def test_a_stack_is_forgotten_after_it_is_down_and_its_name_is_free(stack: Own, other: Own) -> None:
    stack.down()
    # The operator's own file goes by the operator's own hand.
    shutil.move(stack.file, stack.home / "kept.yaml")
    again = stack.kit("init", stack.name, "--images", "local")
    assert again.code == 1
    assert f"dify-kit forget {stack.name} --delete-data" in again.stderr

    done = stack.kit("forget", stack.name, "--yes", stack.name, "--delete-data")

    assert done.code == 0, done.output
    assert stack.volumes() == []
    named = [path for path in stack.home.rglob(f"*{stack.name}*") if path.suffix != ".lock"]
    assert [path for path in named if path.is_file() or any(path.rglob("*.json"))] == []
    assert list(CHECKOUT.glob(f"*.{stack.name}.*")) == []
    assert stack.selected() == other.name
    fresh = stack.kit("init", stack.name, "--images", "local")
    assert fresh.code == 0, fresh.output
