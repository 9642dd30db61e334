"""The drill: a backup under load; volumes and the kit's home gone; everything works again; the archive is proven."""

import hashlib
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import docker
import httpx
import pytest

from support.stacks import CHECKOUT, KIT, SMALLEST, Done, Stack

PASSPHRASE = "a passphrase of the drill"
CHAT = {"inputs": {}, "user": "u-1", "response_mode": "blocking", "auto_generate_name": False}
MESSAGES = 12
# What a restore has printed when it is killed: volumes half filled, databases half loaded; services half started.
KILLED_AT = ("volume app_storage", "database dify:")
CONTINUES_FROM = "  + container migration"
TENANT, CLIENT = "acme", "acme-bot"
UPLOAD = bytes(range(256)) * 2048


class Load:
    """Asks for an answer again and again, and notes which were not given."""

    def __init__(self, url: str, key: str) -> None:
        self.failed: list[str] = []
        self.given = 0
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_problem: object) -> None:
        """End."""
        self._end.set()
        self._thread.join(60)

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, headers=self._headers, timeout=60) as http:
            while not self._end.wait(0.2):
                answer = http.post("/v1/chat-messages", json={**CHAT, "query": "load", "user": "load"})
                if answer.status_code != httpx.codes.OK:
                    self.failed.append(f"{answer.status_code} {answer.text[:200]}")
                self.given += 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backup")


@pytest.fixture(scope="module")
def secret(folder: Path) -> Path:
    path = folder / "archive-passphrase"
    path.write_text(f"{PASSPHRASE}\n")
    return path


@pytest.fixture(scope="module")
def stack(folder: Path) -> Iterator[Stack]:
    one = Stack(home=folder / "home", release=SMALLEST)
    try:
        tenant = {"oauth.enabled": "true", f"oauth.tenants.{TENANT}.app": "echo-chat"}
        done = one.init(set=[f"{key}={value}" for key, value in tenant.items()])
        assert done.code == 0, done.output
        added = one.kit("client", "add", CLIENT, "--tenant", TENANT, "--scope", "chat", "--stack", one.name)
        assert added.code == 0, added.output
        (folder / "client-secret").write_text(added.stdout.strip())
        one.up()
        yield one
    finally:
        one.remove()


@pytest.fixture(scope="module")
def again(folder: Path, stack: Stack) -> Iterator[Stack]:
    """The same stack, driven from a data directory that is empty."""
    one = Stack(home=folder / "other-home", release=SMALLEST, name=stack.name, port=stack.port)
    try:
        yield one
    finally:
        one.remove()


@pytest.fixture(scope="module")
def facts(stack: Stack, folder: Path) -> dict[str, Any]:
    """Conversations, a file and a key that must be there again."""
    outputs = stack.outputs(secrets_too=True)
    key = outputs["appKeys"]["echo-chat"]
    client_secret = (folder / "client-secret").read_text()
    with _client(stack, key) as http:
        said = http.post("/v1/chat-messages", json={**CHAT, "query": "first"}).json()
        for number in range(1, MESSAGES):
            more = {**CHAT, "query": f"message {number}", "conversation_id": said["conversation_id"]}
            assert http.post("/v1/chat-messages", json=more).status_code == 200
        upload = http.post(
            "/v1/files/upload", data={"user": "u-1"}, files={"file": ("drill.png", UPLOAD, "image/png")}
        )
        assert upload.status_code == 201, upload.text
        return {
            "key": key,
            "client_secret": client_secret,
            "token": _token(stack, client_secret),
            "conversation": said["conversation_id"],
            "messages": _messages(http, said["conversation_id"]),
            "outputs": outputs,
            "files": _files(stack),
        }


@pytest.fixture(scope="module")
def archive(stack: Stack, facts: dict[str, Any], secret: Path, folder: Path) -> Path:
    """A backup by the settings alone, that was made under load."""
    stack.set_config("backup.to", str(folder))
    stack.set_config("backup.passphraseFile", str(secret))
    with Load(stack.url, facts["key"]) as load:
        done = stack.kit("backup", "--stack", stack.name)
    assert done.code == 0, done.output
    assert load.given > 0
    assert load.failed == []
    return Path(done.stdout.strip())


def _client(stack: Stack, key: str) -> httpx.Client:
    return httpx.Client(base_url=stack.url, headers={"Authorization": f"Bearer {key}"}, timeout=60)


def _token(stack: Stack, secret: str) -> str:
    form = {"grant_type": "client_credentials", "client_id": CLIENT, "client_secret": secret}
    answer = httpx.post(f"{stack.url}/oauth/token", data=form, timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


def _info(stack: Stack, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"{stack.url}/v1/info", headers=headers, timeout=60).status_code


def _messages(http: httpx.Client, conversation: str) -> list[tuple[str, str, str]]:
    answer = http.get("/v1/messages", params={"user": "u-1", "conversation_id": conversation, "limit": 100})
    assert answer.status_code == 200, answer.text
    return [(one["id"], one["query"], one["answer"]) for one in answer.json()["data"]]


def _files(stack: Stack) -> dict[str, str]:
    """Return the SHA-256 of every file of the storage volume but the marker and the kit's notes."""
    script = "cd /app/api/storage && find . -type f ! -path './.dify-kit*' -exec sha256sum {} +"
    code, output = stack.container("api").exec_run(["sh", "-c", script])
    assert code == 0, output.decode()
    return {line[66:]: line[:64] for line in output.decode().splitlines()}


def test_the_archive_is_private_and_shows_nothing(archive: Path, stack: Stack) -> None:
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    content = archive.read_bytes()
    assert content.startswith(b"-----BEGIN AGE ENCRYPTED FILE-----\n")
    assert b"PostgreSQL" not in content
    assert stack.name.encode() not in content
    assert [path.name for path in archive.parent.glob(".*.part")] == []
    # Nothing that the backup made in the engine is left.
    assert [name for name in stack.containers() if "backup" in name] == []


def test_an_interrupted_backup_leaves_no_archive(
    stack: Stack, archive: Path, secret: Path, tmp_path: Path
) -> None:
    del archive
    command = [
        str(KIT),
        "backup",
        "--stack",
        stack.name,
        "--to",
        str(tmp_path),
        "--passphrase-file",
        str(secret),
    ]
    with subprocess.Popen(
        command,
        cwd=CHECKOUT,
        env=stack.environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        for line in process.stderr:
            if line.startswith("settings, secrets"):
                break
        process.terminate()
        process.communicate(timeout=120)

    assert process.returncode != 0
    assert list(tmp_path.iterdir()) == []


def test_everything_works_again_after_volumes_and_home_are_gone(
    stack: Stack, again: Stack, facts: dict[str, Any], archive: Path, secret: Path
) -> None:
    refused = stack.kit("restore", str(archive), "--passphrase-file", str(secret), "--skip-setup")
    assert refused.code == 1
    assert "exists already" in refused.stderr
    down = stack.kit("down", "--stack", stack.name, "--yes-delete-data-of", stack.name)
    assert down.code == 0, down.output
    assert stack.volumes() == []
    stack.home.rename(stack.home.with_name("lost"))
    (CHECKOUT / f"Pulumi.{stack.name}.yaml").unlink(missing_ok=True)

    done = _after_interruptions(again, archive, secret)

    assert done.code == 0, done.output
    outputs = again.outputs(secrets_too=True)
    assert outputs["appKeys"] == facts["outputs"]["appKeys"]
    assert outputs["apps"] == facts["outputs"]["apps"]
    with _client(again, facts["key"]) as http:
        assert _messages(http, facts["conversation"]) == facts["messages"]
        more = {**CHAT, "query": "and on", "conversation_id": facts["conversation"]}
        assert http.post("/v1/chat-messages", json=more).status_code == 200
    found = _files(again)
    assert {path: found.get(path) for path in facts["files"]} == facts["files"]
    assert hashlib.sha256(UPLOAD).hexdigest() in found.values()
    assert _token(again, facts["client_secret"])
    # A token of before is valid: its signing key came along.
    assert _info(again, facts["token"]) == 200
    shown = again.kit("password", "--stack", again.name)
    assert shown.code == 0, shown.output
    status = again.kit("status", "--stack", again.name)
    assert status.code == 0, status.output
    assert again.steps() == {}


def _after_interruptions(again: Stack, archive: Path, secret: Path) -> Done:
    """Kill a restore where it is worst: `up` refuses what is there and the next restore starts over.

    Killed while services start, its data is complete, and `up` continues.
    """
    for place in KILLED_AT:
        _killed_restore(again, archive, secret, place)
        refused = again.try_up()
        assert refused.code == 1
        assert "did not finish" in refused.stderr
    _killed_restore(again, archive, secret, CONTINUES_FROM)
    return again.up()


def _killed_restore(again: Stack, archive: Path, secret: Path, place: str) -> None:
    arguments = ["restore", str(archive), "--passphrase-file", str(secret), "--skip-setup"]
    seen: list[str] = []
    with subprocess.Popen(
        [str(KIT), *arguments], cwd=CHECKOUT, env=again.environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        for line in process.stderr:
            seen.append(line)
            if line.startswith(place):
                break
        process.kill()
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, "".join(seen[-20:])


def test_the_archive_is_proven_in_a_stack_that_is_gone_afterwards(
    again: Stack, archive: Path, secret: Path
) -> None:
    again.down()

    done = again.kit("backup", "verify", str(archive), "--passphrase-file", str(secret))

    assert done.code == 0, done.output
    assert "is proven" in done.stderr
    client = docker.from_env()
    names = [one["Names"][0].lstrip("/") for one in client.api.containers(all=True)]
    names += [one.name for one in client.volumes.list()]
    assert [name for name in names if name.startswith("dify-verify-")] == []
    assert list(CHECKOUT.glob("Pulumi.verify-*.yaml")) == []
