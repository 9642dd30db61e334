"""A stack moves from a Docker engine to the cluster, is looked at there, backed up, deleted and made again."""

import hashlib
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.catalogue.images import local_builds
from infra.catalogue.releases import RELEASES
from infra.catalogue.selection import Selection
from infra.settings.kubernetes import PRELOADED
from support.images import image_of
from support.stacks import CHECKOUT, SMALLEST, Stack
from tests.cluster.lifecycle import Cluster
from tests.integration.cluster.stacks import remove_namespace

PASSPHRASE = "a passphrase of the move"
NODE_PORT = 30080
CHAT = {"inputs": {}, "user": "u-1", "response_mode": "blocking", "auto_generate_name": False}
MESSAGES = 5
TENANT, CLIENT = "acme", "acme-bot"
UPLOAD = bytes(range(256)) * 1024


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("move")


@pytest.fixture(scope="module")
def secret(folder: Path) -> Path:
    path = folder / "archive-passphrase"
    path.write_text(f"{PASSPHRASE}\n")
    return path


@pytest.fixture(scope="module")
def origin(cluster: Cluster, folder: Path) -> Iterator[Stack]:
    """A stack on the Docker engine, whose public URL is the one that the cluster will answer at."""
    one = Stack(home=folder / "home", release=SMALLEST)
    try:
        settings = (f"oauth.tenants.{TENANT}.app=echo-chat", "oauth.enabled=true")
        url = f"http://localhost:{cluster.port(NODE_PORT)}"
        done = one.init(set=settings, **{"public-url": url})
        assert done.code == 0, done.output
        added = one.kit("client", "add", CLIENT, "--tenant", TENANT, "--scope", "chat", "--stack", one.name)
        assert added.code == 0, added.output
        (folder / "client-secret").write_text(added.stdout.strip())
        one.up()
        yield one
    finally:
        one.remove()


@pytest.fixture(scope="module")
def facts(origin: Stack, folder: Path) -> dict[str, Any]:
    """What must be there again, on either platform."""
    outputs = origin.outputs(secrets_too=True)
    key = outputs["appKeys"]["echo-chat"]
    with client(origin.url, key) as http:
        said = http.post("/v1/chat-messages", json={**CHAT, "query": "first"}).json()
        for number in range(1, MESSAGES):
            more = {**CHAT, "query": f"message {number}", "conversation_id": said["conversation_id"]}
            assert http.post("/v1/chat-messages", json=more).status_code == 200
        sent = http.post(
            "/v1/files/upload", data={"user": "u-1"}, files={"file": ("a.png", UPLOAD, "image/png")}
        )
        assert sent.status_code == 201, sent.text
        return {
            "key": key,
            "client": (folder / "client-secret").read_text(),
            "token": token(origin.url, (folder / "client-secret").read_text()),
            "conversation": said["conversation_id"],
            "messages": messages(http, said["conversation_id"]),
            "outputs": outputs,
        }


@pytest.fixture(scope="module")
def moved(
    cluster: Cluster, origin: Stack, facts: dict[str, Any], secret: Path, folder: Path
) -> Iterator[Stack]:
    """The same stack on the cluster, driven from a data directory that was empty."""
    assert facts
    chosen = Selection(release=RELEASES[SMALLEST].services, vector_store="pgvector")
    roles = {one.image for one in chosen.services().values()} | {"gateway"}
    cluster.load(*sorted({image_of(role) for role in roles & set(local_builds())}))
    archive = backed_up(origin, secret, folder / "of-the-engine.dify-backup")
    origin.down()
    (CHECKOUT / f"Pulumi.{origin.name}.yaml").unlink(missing_ok=True)
    one = Stack(home=folder / "other-home", release=SMALLEST, name=origin.name, port=cluster.port(NODE_PORT))
    try:
        done = one.kit(
            "restore", str(archive), "--skip-setup", "--passphrase-file", str(secret), *on(cluster)
        )
        assert done.code == 0, done.output[-6000:]
        yield one
    finally:
        remove_namespace(cluster, f"dify-{one.name}")
        one.remove()


def on(cluster: Cluster) -> list[str]:
    """Return the options of `restore` that put a stack on the cluster."""
    settings = {
        "platform": "kubernetes",
        "kubernetes.kubeconfig": cluster.kubeconfig,
        "kubernetes.context": cluster.name,
        "kubernetes.serviceType": "NodePort",
        "kubernetes.nodePort": NODE_PORT,
        "kubernetes.registry": PRELOADED,
        "kubernetes.volumeGigabytes": 1,
        # Clients of this machine come by node1; the pod of nginx may be on the other one.
        "kubernetes.externalTrafficPolicy": "Cluster",
    }
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def backed_up(stack: Stack, secret: Path, target: Path) -> Path:
    done = stack.kit("backup", "--stack", stack.name, "--to", str(target), "--passphrase-file", str(secret))
    assert done.code == 0, done.output
    return Path(done.stdout.strip())


def client(url: str, key: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60)


def token(url: str, secret: str) -> str:
    form = {"grant_type": "client_credentials", "client_id": CLIENT, "client_secret": secret}
    answer = httpx.post(f"{url}/oauth/token", data=form, timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


def messages(http: httpx.Client, conversation: str) -> list[tuple[str, str, str]]:
    answer = http.get("/v1/messages", params={"user": "u-1", "conversation_id": conversation, "limit": 100})
    assert answer.status_code == 200, answer.text
    return [(one["id"], one["query"], one["answer"]) for one in answer.json()["data"]]


def require_same(cluster: Cluster, stack: Stack, facts: dict[str, Any]) -> None:
    """Demand that keys, clients, conversations and files are those of the first stack."""
    outputs = stack.outputs(secrets_too=True)
    for name in ("appKeys", "apps", "publicUrl"):
        assert outputs[name] == facts["outputs"][name], name
    with client(stack.url, facts["key"]) as http:
        assert set(facts["messages"]) <= set(messages(http, facts["conversation"]))
        more = {**CHAT, "query": "and on", "conversation_id": facts["conversation"]}
        assert http.post("/v1/chat-messages", json=more).status_code == 200
    assert token(stack.url, facts["client"])
    # A token of before is valid: its signing key came along.
    headers = {"Authorization": f"Bearer {facts['token']}"}
    assert httpx.get(f"{stack.url}/v1/info", headers=headers, timeout=60).status_code == 200
    script = "find /app/api/storage -type f -exec sha256sum {} +"
    found = cluster.kubectl(
        *("exec", "--namespace", f"dify-{stack.name}", "deployment/api", "--", "sh", "-c", script)
    )
    assert hashlib.sha256(UPLOAD).hexdigest() in found


def pods(cluster: Cluster, stack: Stack) -> list[str]:
    found = cluster.get("pods", "--namespace", f"dify-{stack.name}")["items"]
    return [str(one["metadata"]["name"]) for one in found]


def test_a_stack_of_an_engine_moves_to_the_cluster(
    cluster: Cluster, moved: Stack, facts: dict[str, Any]
) -> None:
    require_same(cluster, moved, facts)
    assert [name for name in pods(cluster, moved) if name.startswith("backup-")] == []
    # Nothing is left for the next `up` to do.
    assert moved.steps() == {}


def test_status_has_every_service_and_no_problem(moved: Stack) -> None:
    done = moved.kit("status", "--json", "--stack", moved.name)

    assert done.code == 0, done.output
    found = json.loads(done.stdout)
    services = {one["service"]: one for one in found["services"]}
    assert {"api", "db-postgres", "nginx", "gateway"} <= set(services)
    assert all(
        (one["ready"], one["state"]) == (one["wanted"], "running")
        for one in found["services"]
        if not one["job"]
    )
    assert services["api"]["memory"] > 1 << 20
    assert services["api"]["memoryLimit"] > services["api"]["memory"]
    assert found["address"]["answers"] is True
    assert {name: one["same"] for name, one in found["revisions"].items()} == {"nginx": True, "gateway": True}


def test_what_a_person_changed_is_a_problem_and_up_repairs_it(cluster: Cluster, moved: Stack) -> None:
    cluster.kubectl("scale", "deployment", "web", "--replicas=0", "--namespace", f"dify-{moved.name}")

    broken = moved.kit("status", "--json", "--stack", moved.name)
    moved.up()

    problems = [one["what"] for one in json.loads(broken.stdout)["problems"]]
    assert broken.code == 1
    assert problems == ["web was scaled to 0 pods outside of the kit, and 1 were deployed"]
    assert moved.kit("status", "--stack", moved.name).code == 0


def test_logs_of_pods_are_shown_by_time(moved: Stack, facts: dict[str, Any]) -> None:
    with client(moved.url, facts["key"]) as http:
        assert http.get("/v1/info").status_code == 200

    done = moved.kit("logs", "nginx", "api", "--since", "5m", "--json", "--stack", moved.name)

    assert done.code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["service"] for line in lines} >= {"nginx"}
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    assert all(line["pod"].startswith(line["service"]) for line in lines)
    assert [line for line in lines if "/v1/info" in line["line"]]
    assert facts["key"] not in done.stdout


def test_a_support_bundle_has_the_cluster_and_no_secret(
    moved: Stack, facts: dict[str, Any], tmp_path: Path
) -> None:
    target = tmp_path / "bundle.tar.gz"

    done = moved.kit("support-bundle", "--to", str(target), "--stack", moved.name)

    assert done.code == 0, done.output
    with tarfile.open(target) as tar:
        texts = {
            one.name.partition("/")[2]: file.read().decode()
            for one in tar
            if (file := tar.extractfile(one)) is not None
        }
    assert {"cluster/pods.json", "cluster/events.json", "logs/api.log", "status.json"} <= set(texts)
    whole = "".join(texts.values())
    assert facts["key"] not in whole
    assert facts["client"] not in whole


def test_secrets_are_rotated_in_their_pods(cluster: Cluster, moved: Stack, facts: dict[str, Any]) -> None:
    for name in ("database", "redis"):
        done = moved.kit("keys", "rotate", name, "--stack", moved.name)
        assert done.code == 0, done.output[-4000:]
        assert f"{name} is rotated" in done.output
    require_same(cluster, moved, facts)


def test_everything_works_again_after_the_claims_are_gone(
    cluster: Cluster, moved: Stack, facts: dict[str, Any], secret: Path, folder: Path
) -> None:
    archive = backed_up(moved, secret, folder / "of-the-cluster.dify-backup")
    down = moved.kit("down", "--stack", moved.name, "--yes-delete-data-of", moved.name)
    assert down.code == 0, down.output

    done = moved.kit(
        *("restore", str(archive), "--skip-setup", "--replace", moved.name),
        *("--passphrase-file", str(secret)),
    )

    assert done.code == 0, done.output[-6000:]
    require_same(cluster, moved, facts)
    assert moved.kit("status", "--stack", moved.name).code == 0


def test_an_archive_of_the_cluster_is_proven_on_the_engine(moved: Stack, secret: Path, folder: Path) -> None:
    archive = folder / "of-the-cluster.dify-backup"

    done = moved.kit("backup", "verify", str(archive), "--passphrase-file", str(secret))

    assert done.code == 0, done.output[-6000:]
    assert "is proven" in done.stderr
