"""The drill: 1.12.1 to 1.14.2 to 1.17.1 with data, killed on the way, and back to the data of 1.14.2."""

import hashlib
import json
import signal
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from support.stacks import CHECKOUT, KIT, Done, Stack

FIRST, SECOND, THIRD = "1.12.1", "1.14.2", "1.17.1"
TENANT, CLIENT = "acme", "acme-bot"
USER = "u-1"
CHAT = {"inputs": {}, "user": USER, "response_mode": "blocking", "auto_generate_name": False}
UPLOAD = bytes(range(256)) * 2048
# What the command has printed when it is killed: in the backup; with the settings changed and the data not; in the
# migration, while the plugin daemon is replaced; while the volumes of a rollback are filled.
IN_BACKUP, BEFORE_DATA = "database dify_plugin", "==> deploying stack"
IN_MIGRATION, IN_RESTORE = "  + container migration", "volume app_storage"


@dataclass
class Kept:
    """What a stack must have after each step: messages, files, an API key, and a client with its token."""

    stack: Stack
    secret: str
    key: str = ""
    token: str = ""
    conversation: str = ""
    messages: list[tuple[str, str, str]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    def begin(self) -> None:
        """Make the first conversation, and a file."""
        self.key = self.stack.outputs(secrets_too=True)["appKeys"]["echo-chat"]
        self.token = self._token()
        with self._client() as http:
            said = http.post("/v1/chat-messages", json={**CHAT, "query": "first"}).json()
            self.conversation = said["conversation_id"]
            files = {"file": ("drill.png", UPLOAD, "image/png")}
            uploaded = http.post("/v1/files/upload", data={"user": USER}, files=files)
            assert uploaded.status_code == 201, uploaded.text
        self.files = self._files()
        self.add("second")

    def add(self, query: str) -> None:
        """Add a message to the conversation, and note what there is."""
        with self._client() as http:
            more = {**CHAT, "query": query, "conversation_id": self.conversation}
            assert http.post("/v1/chat-messages", json=more).status_code == 200
        self.messages = self.now()

    def now(self) -> list[tuple[str, str, str]]:
        """Return the messages of the conversation."""
        with self._client() as http:
            asked = {"user": USER, "conversation_id": self.conversation, "limit": "100"}
            answer = http.get("/v1/messages", params=asked)
        assert answer.status_code == 200, answer.text
        return [(one["id"], one["query"], one["answer"]) for one in answer.json()["data"]]

    def check(self, release: str) -> None:
        """Demand that everything is there, with the keys of before, on a release that is deployed to its end."""
        assert self.now() == self.messages
        found = self._files()
        assert {path: found.get(path) for path in self.files} == self.files
        assert hashlib.sha256(UPLOAD).hexdigest() in found.values()
        assert self._token()
        headers = {"Authorization": f"Bearer {self.token}"}
        assert httpx.get(f"{self.stack.url}/v1/info", headers=headers, timeout=60).status_code == 200
        outputs = self.stack.outputs(secrets_too=True)
        assert outputs["appKeys"]["echo-chat"] == self.key
        assert outputs["release"] == release
        assert self.stack.steps() == {}

    def _client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.stack.url, headers=headers, timeout=60)

    def _token(self) -> str:
        form = {"grant_type": "client_credentials", "client_id": CLIENT, "client_secret": self.secret}
        answer = httpx.post(f"{self.stack.url}/oauth/token", data=form, timeout=60)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def _files(self) -> dict[str, str]:
        """Return the SHA-256 of every file of the storage volume but the marker and the kit's notes."""
        script = "cd /app/api/storage && find . -type f ! -path './.dify-kit*' -exec sha256sum {} +"
        code, output = self.stack.container("api").exec_run(["sh", "-c", script])
        assert code == 0, output.decode()
        return {line[66:]: line[:64] for line in output.decode().splitlines()}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    one = Stack(home=tmp_path_factory.mktemp("upgrade") / "home", release=FIRST)
    try:
        chosen = [
            "oauth.enabled=true",
            f"oauth.tenants.{TENANT}.app=echo-chat",
            'extraEnv={"api": {"EDITION": "SELF_HOSTED"}}',
        ]
        done = one.init(set=chosen)
        assert done.code == 0, done.output
        yield one
    finally:
        one.remove()


@pytest.fixture(scope="module")
def kept(stack: Stack) -> Kept:
    """A stack of the first release with data."""
    added = stack.kit("client", "add", CLIENT, "--tenant", TENANT, "--scope", "chat", "--stack", stack.name)
    assert added.code == 0, added.output
    stack.up()
    one = Kept(stack=stack, secret=added.stdout.strip())
    one.begin()
    return one


def upgrade(stack: Stack, release: str, *options: str) -> Done:
    return stack.kit("upgrade", release, "--stack", stack.name, *options)


def succeeded(done: Done) -> Done:
    assert done.code == 0, done.output[-6000:]
    return done


def killed(stack: Stack, place: str, *arguments: str) -> None:
    """Run a command, and kill it once it has printed a line that begins like this."""
    seen: list[str] = []
    with subprocess.Popen(
        [str(KIT), *arguments, "--stack", stack.name],
        cwd=CHECKOUT,
        env=stack.environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr
        for line in process.stderr:
            seen.append(line)
            if line.startswith(place):
                break
        process.kill()
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, "".join(seen[-20:])


def journal(stack: Stack) -> dict[str, Any]:
    path = stack.home / "runs" / f"{stack.name}.upgrade"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def test_the_first_upgrade_is_killed_in_its_backup_and_continued(stack: Stack, kept: Kept) -> None:
    planned = json.loads(succeeded(upgrade(stack, SECOND, "--plan", "--json")).stdout)
    assert [one["kind"] for one in planned["steps"]] == ["backup", "move", "smoke"]
    killed(stack, IN_BACKUP, "upgrade", SECOND, "--yes")
    assert journal(stack)["at"] == 0
    assert list((stack.home / "backups").glob("*.dify-backup")) == []

    done = succeeded(upgrade(stack, SECOND))

    assert f"continuing the upgrade of stack {stack.name} to Dify {SECOND}" in done.stderr
    assert f"stack {stack.name} runs Dify {SECOND} (before: {FIRST})" in done.stderr
    assert f"rollback --stack {stack.name}" in done.stderr.strip().splitlines()[-1]
    [archive] = (stack.home / "backups").glob("*.dify-backup")
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    assert list((stack.home / "backups").glob(".*.part")) == []
    noted = journal(stack)
    assert (noted["state"], noted["archive"]) == ("done", str(archive))
    # Measured while the api was replaced.
    assert 0 < noted["away"] < sum(noted["seconds"].values())
    kept.check(SECOND)


def test_a_way_back_by_the_settings_is_refused(stack: Stack, kept: Kept) -> None:
    kept.add("of 1.14.2")
    refused = upgrade(stack, FIRST, "--yes")
    assert refused.code == 1
    assert f"Dify cannot migrate data back to {FIRST}" in refused.stderr

    # That `up` refuses such a setting is a test of test_stack.py.
    assert stack.kit("set", "release", FIRST, "--stack", stack.name).code == 0
    behind = upgrade(stack, THIRD, "--yes")
    assert stack.kit("set", "release", SECOND, "--stack", stack.name).code == 0

    assert behind.code == 1
    assert f"the settings say Dify {FIRST}, and its data is of {SECOND}" in behind.stderr
    assert kept.now() == kept.messages


def test_an_upgrade_that_has_not_touched_the_data_is_taken_back_without_a_loss(
    stack: Stack, kept: Kept
) -> None:
    killed(stack, BEFORE_DATA, "upgrade", THIRD, "--yes", "--without-smoke")
    assert stack.kit("output", "release", "--stack", stack.name).stdout.strip() == SECOND
    kept.add("after the backup")

    done = succeeded(stack.kit("rollback", "--stack", stack.name))

    assert "its data is as it was" in done.stderr
    assert "no data was lost" in done.stderr
    kept.check(SECOND)


def test_the_second_upgrade_is_killed_in_the_migration_and_continued(stack: Stack, kept: Kept) -> None:
    killed(stack, IN_MIGRATION, "upgrade", THIRD, "--yes", "--without-smoke")
    refused = upgrade(stack, "1.17.0", "--yes")
    assert refused.code == 1
    assert f"an upgrade of stack {stack.name} to Dify {THIRD} is not complete" in refused.stderr

    succeeded(upgrade(stack, THIRD))

    extra = json.loads(stack.pulumi("config", "get", "dify:extraEnv").stdout)
    assert extra == {"api": {"DEPLOYMENT_EDITION": "COMMUNITY"}}
    kept.check(THIRD)


def test_rollback_brings_back_the_data_of_before_also_when_it_is_killed(stack: Stack, kept: Kept) -> None:
    noted, before = journal(stack), kept.messages
    kept.add("which is lost")
    asked = stack.kit("rollback", "--stack", stack.name)
    assert asked.code == 2
    assert kept.now() == kept.messages
    sure = ("--yes-delete-data-of", stack.name)
    killed(stack, IN_RESTORE, "rollback", *sure)
    assert stack.try_up().code == 1

    done = succeeded(stack.kit("rollback", "--stack", stack.name, *sure))

    assert f"runs Dify {noted['release']} again" in done.stderr
    kept.messages = before
    kept.check(noted["release"])
    extra = json.loads(stack.pulumi("config", "get", "dify:extraEnv").stdout)
    assert extra == {"api": {"EDITION": "SELF_HOSTED"}}
    assert not (stack.home / "runs" / f"{stack.name}.upgrade").exists()
