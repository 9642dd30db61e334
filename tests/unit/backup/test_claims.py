"""Claims of a cluster as a backup reads them and a restore fills them: by real tar, through the API of a test."""

import os
import stat
import subprocess
import tarfile
import threading
import tracemalloc
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from dify_kit.backup import claims, postgres
from dify_kit.backup.claims import ABOVE, ClaimVolumes
from dify_kit.backup.postgres import Postgres, Rows
from dify_kit.backup.stores import ROOT, VolumeError, filled
from dify_kit.backup.trees import BrokenTreeError, Counted
from dify_kit.errors import KitError
from infra.engine import cluster_changes
from infra.engine.cluster import Cluster, Workload
from infra.settings.kubernetes import Kubernetes
from infra.settings.routes import Routes
from tests.unit.backup.archives import blocks, tree
from tests.unit.cluster_api import CONTEXT, Api, Channel, served

NAMESPACE = "/api/v1/namespaces/dify-dev"
CLAIMS, PODS = f"{NAMESPACE}/persistentvolumeclaims", f"{NAMESPACE}/pods"
MEBIBYTE = 1 << 20


class Nodes:
    """A cluster with claims that are directories, and pods in which commands run as they do on this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.objects: dict[str, dict[str, dict[str, Any]]] = {"claims": {}, "pods": {}}
        self.made: list[dict[str, Any]] = []
        self.commands: list[list[str]] = []
        # What a command writes instead of running.
        self.said: list[tuple[int, bytes, bytes]] = []
        self.status: dict[str, Any] = {"containerStatuses": [{"name": "backup", "state": {"running": {}}}]}
        Api.shells.append(self.run)
        Api.answers.update(
            {
                ("POST", "/api/v1/namespaces"): (409, {}),
                ("POST", "/apis/networking.k8s.io/v1/namespaces/dify-dev/networkpolicies"): self._note,
                ("POST", CLAIMS): self._claim,
                ("GET", CLAIMS): lambda _path, _body: (200, self._list("claims")),
                ("POST", PODS): self._pod,
                ("GET", PODS): lambda _path, _body: (200, self._list("pods")),
            }
        )

    def _list(self, kind: str) -> dict[str, Any]:
        return {"items": list(self.objects[kind].values())}

    def _note(self, _path: str, body: dict[str, Any]) -> tuple[int, Any]:
        self.made.append(body)
        return 201, body

    def _claim(self, _path: str, body: dict[str, Any]) -> tuple[int, Any]:
        name = body["metadata"]["name"]
        if name in self.objects["claims"]:
            return 409, {}
        self.objects["claims"][name] = body
        (self.root / name / ROOT).mkdir(parents=True, exist_ok=True)
        return self._note("", body)

    def _pod(self, _path: str, body: dict[str, Any]) -> tuple[int, Any]:
        name = body["metadata"]["name"]
        self.objects["pods"][name] = {**body, "status": self.status}
        Api.answers["GET", f"{PODS}/{name}"] = lambda _path, _body: (200, self.objects["pods"][name])
        Api.answers["DELETE", f"{PODS}/{name}"] = lambda _path, _body: (
            200,
            self.objects["pods"].pop(name, {}),
        )
        return self._note("", body)

    def run(self, pod: str, words: list[str], channel: Channel) -> None:
        """Run a command with the claim of its pod as the volume."""
        self.commands.append(words)
        if self.said:
            code, output, errors = self.said.pop(0)
            channel.write(output)
            channel.write(errors, 2)
            channel.end(code)
            return
        (volume,) = self.objects["pods"][pod]["spec"]["volumes"]
        place = str(self.root / volume["persistentVolumeClaim"]["claimName"])
        here = [word.replace(ABOVE, place) for word in words]
        if words[0] == "sh":
            # Nothing here may change owners.
            here[2] = here[2].replace("--same-owner", "--no-same-owner")
        done = subprocess.Popen(here, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert done.stdin
        assert done.stdout
        assert done.stderr
        feeder = threading.Thread(target=self._feed, args=(channel, done.stdin, words), daemon=True)
        feeder.start()
        while block := done.stdout.read(30_000):
            channel.write(block)
        errors = done.stderr.read()
        if errors:
            channel.write(errors, 2)
        channel.end(done.wait())

    @staticmethod
    def _feed(channel: Channel, target: Any, words: list[str]) -> None:
        left = int(words[-1]) if words[0] == "sh" else 0
        while left and (data := channel.read(min(left, 30_000))):
            target.write(data)
            left -= len(data)
        target.close()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with served(tmp_path):
        yield Nodes(tmp_path / "node")


@pytest.fixture
def store(nodes: Nodes, tmp_path: Path) -> ClaimVolumes:
    assert nodes
    chosen = Kubernetes(
        kubeconfig=tmp_path / "kubeconfig",
        context=CONTEXT,
        namespace="dify-dev",
        storage_class="",
        shared_storage_class="",
        volume_gigabytes=3,
        service_type="ClusterIP",
        node_port=0,
        external_traffic_policy="Local",
        replicas={},
        autoscale={},
        routes=Routes(),
        image_pull_secret="login",
        registry="",
    )
    cluster = Cluster.of(chosen.kubeconfig, CONTEXT)
    return ClaimVolumes(cluster=cluster, chosen=chosen, stack="dev", image="registry.example.com/api:1")


def fill(store: ClaimVolumes, content: bytes, size: int = 0) -> None:
    store.fill("dify-dev-app_storage", {"dify-kit.stack": "dev"}, blocks(content), size or len(content))


def test_a_volume_that_was_filled_is_read_again_with_the_same_files(
    store: ClaimVolumes, nodes: Nodes
) -> None:
    content = tree({"a": b"x" * 100_000, "deep/b": b"content", "empty": b""})

    found = filled(store, "dify-dev-app_storage", {"dify-kit.stack": "dev"}, blocks(content), len(content))

    counted = Counted(blocks(content), root=ROOT)
    assert list(counted)
    assert found == counted.census()
    assert (nodes.root / "app-storage" / ROOT / "deep" / "b").read_bytes() == b"content"
    claim = nodes.objects["claims"]["app-storage"]
    assert claim["spec"]["resources"] == {"requests": {"storage": "3Gi"}}
    assert claim["metadata"]["labels"] == {"dify-kit.stack": "dev"}
    assert nodes.objects["pods"] == {}


def test_what_is_read_has_its_modes_and_no_directory_of_a_file_system(
    store: ClaimVolumes, nodes: Nodes
) -> None:
    fill(store, tree({"a": b"content"}))
    volume = nodes.root / "app-storage" / ROOT
    (volume / "lost+found").mkdir()
    (volume / "a").chmod(0o640)
    (volume / "link").symlink_to("/etc/passwd")

    with store.reading("dify-dev-app_storage") as found:
        content = b"".join(found)

    with tarfile.open(fileobj=BytesIO(content)) as tar:
        entries = {one.name: one for one in tar.getmembers()}
    assert set(entries) == {ROOT, f"{ROOT}/a", f"{ROOT}/link"}
    assert stat.S_IMODE(entries[f"{ROOT}/a"].mode) == 0o640
    assert entries[f"{ROOT}/link"].linkname == "/etc/passwd"


def test_the_pod_of_a_copy_is_closed_near_the_claim_and_ends_by_itself(
    store: ClaimVolumes, nodes: Nodes
) -> None:
    fill(store, tree({}))
    with store.reading("dify-dev-app_storage") as found:
        list(found)

    writer, reader = (one for one in nodes.made if one["kind"] == "Pod")
    for pod in (writer, reader):
        # No label of a network: only the policy that denies everything selects it.
        assert pod["metadata"]["labels"] == {"dify-kit.stack": "dev", "dify-kit.claim/app-storage": "true"}
        spec = pod["spec"]
        (term,) = spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["labelSelector"] == {"matchLabels": {"dify-kit.claim/app-storage": "true"}}
        assert spec["automountServiceAccountToken"] is False
        assert spec["activeDeadlineSeconds"] == claims.LIFE_SECONDS
        assert spec["imagePullSecrets"] == [{"name": "login"}]
        rights = spec["containers"][0]["securityContext"]
        assert rights["capabilities"]["drop"] == ["ALL"]
        # All of them are in the Pod Security level `baseline`.
        assert set(rights["capabilities"]["add"]) == {"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"}
    mounts = [one["spec"]["containers"][0]["volumeMounts"][0]["readOnly"] for one in (writer, reader)]
    assert mounts == [False, True]
    policy = next(one for one in nodes.made if one["kind"] == "NetworkPolicy")
    assert policy["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_memory_does_not_grow_with_the_volume(store: ClaimVolumes, nodes: Nodes) -> None:
    fill(store, tree({"a": b""}))
    size = 48 * MEBIBYTE
    with (nodes.root / "app-storage" / ROOT / "large").open("wb") as file:
        file.truncate(size)
    passed = 0

    tracemalloc.start()
    try:
        with store.reading("dify-dev-app_storage") as found:
            for block in found:
                passed += len(block)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert passed > size
    # The API of the test is in this process, too.
    assert most < size / 4


def test_a_file_that_shrinks_is_a_broken_copy_and_one_that_changes_is_none(
    store: ClaimVolumes, nodes: Nodes
) -> None:
    fill(store, tree({}))
    nodes.said = [
        (1, b"", b"tar: volume/a: File shrank by 5 bytes; padding with zeros\n"),
        (1, b"content", b"tar: volume/a: file changed as we read it\n"),
    ]

    with pytest.raises(BrokenTreeError, match="shrank"), store.reading("dify-dev-app_storage") as found:
        list(found)
    with store.reading("dify-dev-app_storage") as found:
        assert list(found) == [b"content"]
    assert nodes.objects["pods"] == {}


def test_a_disk_that_is_full_is_an_error_with_tars_words(store: ClaimVolumes, nodes: Nodes) -> None:
    nodes.said = [(2, b"", b"tar: volume/a: Cannot write: No space left on device\n")]

    with pytest.raises(KitError, match="No space left on device") as refused:
        filled(store, "dify-dev-redis", {}, blocks(tree({"a": b"x"})), 10240)
    assert "starts over" in refused.value.hint
    assert nodes.objects["pods"] == {}


def test_a_pod_that_cannot_start_is_an_error_with_the_reason(store: ClaimVolumes, nodes: Nodes) -> None:
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
    nodes.status = {"containerStatuses": [{"name": "backup", "state": waiting, "restartCount": 0}]}

    with pytest.raises(VolumeError, match="cannot start: ErrImagePull: no such image"):
        fill(store, tree({}))
    assert nodes.objects["pods"] == {}


def test_a_pod_that_no_node_takes_is_an_error_with_what_was_seen_last(
    store: ClaimVolumes, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "START_SECONDS", 0.2)
    monkeypatch.setattr(cluster_changes, "POLL_SECONDS", 0.05)
    nodes.status = {
        "phase": "Pending",
        "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}
        ],
    }

    with pytest.raises(VolumeError, match="Unschedulable: 0/2 nodes"):
        fill(store, tree({}))


def test_a_claim_that_is_there_is_not_filled(store: ClaimVolumes, nodes: Nodes) -> None:
    fill(store, tree({}))

    with pytest.raises(VolumeError, match="claim app-storage exists already"):
        fill(store, tree({}))
    # The one that filled and counted it.
    assert len([one for one in nodes.made if one["kind"] == "Pod"]) == 1


def test_an_earlier_claim_that_is_being_deleted_is_waited_for(
    store: ClaimVolumes, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "GONE_SECONDS", 0.2)
    monkeypatch.setattr(cluster_changes, "POLL_SECONDS", 0.05)
    nodes.objects["claims"]["app-storage"] = {
        "metadata": {"name": "app-storage", "deletionTimestamp": "2026-11-30T00:00:00Z"}
    }

    with pytest.raises(VolumeError, match="claim app-storage is being deleted"):
        fill(store, tree({}))


def test_pods_of_a_run_that_was_killed_are_removed_first(store: ClaimVolumes, nodes: Nodes) -> None:
    left: dict[str, Any] = {
        "metadata": {"name": "backup-redis-abc123", "labels": {}},
        "spec": {"volumes": []},
    }
    nodes._pod("", left)

    fill(store, tree({}))

    assert nodes.objects["pods"] == {}


# databases, by the runtime of a pod


def server() -> Postgres:
    at = Workload(
        kubeconfig=str(Path(os.environ["TEST_KUBECONFIG"])),
        context=CONTEXT,
        namespace="dify-dev",
        kind="Pod",
        name="db-1",
    )
    return Postgres(container=str(at), name="db-postgres")


@pytest.fixture
def database(nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    monkeypatch.setenv("TEST_KUBECONFIG", str(tmp_path / "kubeconfig"))
    labels = {"dify-kit.service": "db-postgres"}
    Api.answers["GET", f"{PODS}/db-1"] = (200, {"metadata": {"name": "db-1", "labels": labels}})
    return nodes


def test_a_dump_passes_and_its_rows_are_counted(database: Nodes) -> None:
    text = b"COPY public.a (id) FROM stdin;\n1\n2\n\\.\n-- PostgreSQL database dump complete\n"
    database.said = [(0, text, b"")]
    rows = Rows()

    assert b"".join(server().dump("dify", rows)) == text
    assert rows.tables == {"public.a": 2}
    (command,) = database.commands
    assert command[:2] == ["sh", "-c"]
    assert "PGPASSWORD=$(cat " in command[2]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ((1, b"COPY", b"pg_dump: error: server closed the connection\n"), "server closed the connection"),
        ((0, b"COPY", b""), "pg_dump of dify is not complete"),
    ],
)
def test_a_dump_that_is_not_complete_is_an_error(
    database: Nodes, said: tuple[int, bytes, bytes], words: str
) -> None:
    database.said = [said]
    with pytest.raises(KitError, match=words):
        list(server().dump("dify", Rows()))


def test_a_dump_is_loaded_in_one_transaction_that_ends_without_the_end_of_the_input(database: Nodes) -> None:
    got = bytearray()

    def psql(_pod: str, words: list[str], channel: Channel) -> None:
        if "--output" in words:
            while not got.endswith(b"\\q\n"):
                got.extend(channel.read(1))
        channel.end(0)

    Api.shells[0] = psql
    large = b"INSERT;\n" * 9_000
    server().load("dify", blocks(large))

    assert database
    assert bytes(got) == b"BEGIN;\n" + large + b"\nCOMMIT;\n\\q\n"


def test_a_server_that_refuses_a_dump_is_an_error_with_its_words(database: Nodes) -> None:
    def psql(_pod: str, words: list[str], channel: Channel) -> None:
        if "--output" in words:
            channel.read(10)
            channel.write(b'ERROR:  type "vector" does not exist\n', 2)
            channel.end(3)
        else:
            channel.end(0)

    Api.shells[0] = psql
    with pytest.raises(KitError, match=r'psql.s code 3.*type "vector" does not exist'):
        server().load("dify", blocks(b"CREATE;\n" * 100_000))
    assert database


def test_a_connection_that_breaks_is_an_error(database: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_SECONDS", 0.3)

    def silent(_pod: str, _words: list[str], channel: Channel) -> None:
        channel.write(b"begun")
        channel.read(1)

    Api.shells[0] = silent
    with pytest.raises(KitError, match=r"the dump of dify broke off: .* nothing came for 0 s"):
        list(server().dump("dify", Rows()))
    assert database
